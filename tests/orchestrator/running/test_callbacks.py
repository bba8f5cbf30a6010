"""What the driver records and shows: a run begins when it has its place, and until then it waits."""

from types import SimpleNamespace

import pytest
from ray.tune.experiment import Trial

from ablations.study.plan import Run
from orchestrator.prepare.jobs import Job
from orchestrator.running import callbacks as module
from orchestrator.running.callbacks import RunCallbacks
from orchestrator.store.ledger import Ledger
from trainer.config import parse
from trainer.files import run_folder
from trainer.place import Place


class Said(list):
    """A view that notes what it is told."""

    def __getattr__(self, name):
        return lambda job, *more: self.append((name, job.label))


@pytest.fixture
def made(tmp_path, monkeypatch):
    """made(workers) -> callbacks, their view, and a trial of theirs; a clock that a test moves."""
    now = SimpleNamespace(s=1000.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now.s))

    def make(workers):
        job = Job("study", Run("arm", "a", 0, parse({}), {}, None), "run0", Place(out_dir=tmp_path / "run0"))
        view = Said()
        callbacks = RunCallbacks({"run0": job}, Ledger(tmp_path / "ledger.jsonl"), None, view)
        trial = SimpleNamespace(
            config={"jobs": [{"run_id": "run0", "workers": workers, "refused": None}], "most": 1}, status=Trial.RUNNING
        )
        return callbacks, view, trial, now

    return make


def events(callbacks):
    run = callbacks.ledger.run("run0")
    return 0 if run is None else run.attempts


def test_a_run_of_several_workers_begins_when_they_have_their_places(made, tmp_path):
    callbacks, view, trial, now = made(workers=2)
    callbacks.on_trial_start(1, [trial], trial)
    for _ in range(40):
        now.s += 1
        callbacks.on_step_end(1, [trial])
    assert view == [("queued", "a seed 0")]
    assert events(callbacks) == 0
    run_folder.workers_begin(tmp_path / "run0")
    now.s += 1
    callbacks.on_step_end(1, [trial])
    assert view[1:] == [("started", "a seed 0")]
    assert events(callbacks) == 1
    run_folder.wait_for_workers(tmp_path / "run0")  # a worker was lost, and its place is taken
    for _ in range(20):
        now.s += 1
        callbacks.on_step_end(1, [trial])
    run_folder.workers_begin(tmp_path / "run0")
    now.s += 1
    callbacks.on_step_end(1, [trial])
    assert view[2:] == [("queued", "a seed 0"), ("started", "a seed 0")]
    assert events(callbacks) == 1


def test_a_run_whose_workers_are_elsewhere_does_not_wait_once_it_reports(made, tmp_path):
    callbacks, view, trial, now = made(workers=2)
    callbacks.mirror = Said()
    callbacks.on_trial_start(1, [trial], trial)
    callbacks.on_trial_result(1, [trial], trial, {"run_id": "run0", "epoch": 1.0, "workers": 2})
    for _ in range(20):
        now.s += 1
        callbacks.on_step_end(1, [trial])
    assert [name for name, _ in view] == ["started", "epoch"]
    assert [tuple(epoch) for epoch in callbacks.ledger.run("run0").epochs] == [("epoch",)], "and no number of workers"


def test_epochs_that_no_driver_has_heard_of_come_before_the_next(made, tmp_path):
    callbacks, _, trial, _ = made(workers=1)
    callbacks.mirror = Said()
    (tmp_path / "run0").mkdir()
    for epoch in (1.0, 2.0):
        run_folder.append_epoch(tmp_path / "run0", {"epoch": epoch})
    callbacks.on_trial_start(1, [trial], trial)
    for epoch in (3.0, 4.0):
        callbacks.on_trial_result(1, [trial], trial, {"run_id": "run0", "epoch": epoch})
    assert [epoch["epoch"] for epoch in callbacks.ledger.run("run0").epochs] == [1, 2, 3, 4]
    written = [event["metrics"]["epoch"] for _, event in callbacks.ledger.whole() if event["event"] == "epoch"]
    assert written == [1, 2, 3, 4], "in their order, as trackers send them"


def test_a_run_that_pauses_may_be_another_drivers_until_it_goes_on(made):
    callbacks, _, trial, _ = made(workers=1)
    free, settings = [], trial.config["jobs"][0]
    callbacks.waits, callbacks.ended = (lambda run_id: True), free.append
    for attempts in (1, 1):
        trial.config["jobs"] = [settings]
        callbacks.on_trial_start(1, [trial], trial)
        assert events(callbacks) == attempts, "it has gone on"
        callbacks.on_trial_complete(1, [trial], trial)
    assert free == ["run0", "run0"]
    callbacks.ledger.append({"event": "interrupted", "run_id": "run0"})  # another driver has looked at it
    trial.config["jobs"] = [settings]
    callbacks.on_trial_start(1, [trial], trial)
    assert events(callbacks) == 2
    assert callbacks.ledger.run("run0").status == "running"


def test_a_run_of_one_worker_waits_for_its_process_and_a_quick_start_is_not_mentioned(made):
    callbacks, view, trial, now = made(workers=1)
    trial.status = Trial.PENDING
    for _ in range(5):
        now.s += 1
        callbacks.on_step_end(1, [trial])
    assert view == []
    for _ in range(60):
        now.s += 1
        callbacks.on_step_end(1, [trial])
    assert view == [("queued", "a seed 0")]
    callbacks.on_trial_start(1, [trial], trial)
    assert view[1:] == [("started", "a seed 0")]
    assert events(callbacks) == 1
