"""What the runs of a cohort share and what each has alone: retry budgets, memory, failures and ends."""

import sys
from pathlib import Path

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError
from ray.tune.experiment import Trial

from ablations.study.plan import Run
from cluster.retries import Retries
from cluster.spec import ClusterSpec
from orchestrator.prepare.jobs import Job
from orchestrator.running import trial as trial_module
from orchestrator.running.callbacks import RunCallbacks
from orchestrator.running.shared_searcher import together
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger
from orchestrator.store.run_folder import read_retries
from trainer.config import parse
from trainer.files import run_folder
from trainer.files.failure import Failure
from trainer.place import Place

SHORT = OutOfMemoryError("Task was killed due to the node running low on memory.")


class Said(list):
    """A view that notes what it is told, and tracking that notes nothing."""

    def __getattr__(self, name):
        return lambda job, *more: self.append((name, job.run_id, *more[:1]))


class Recorded(Trial):
    """Tune's own; its files lie where a test says, for Ray does not run."""

    local_path = None


class Bench:
    """A trial of four runs, `run0` to `run3`, as Tune and its callbacks have it, and as its process does."""

    def __init__(self, root, retries):
        self.store = Store(root)
        spec = ClusterSpec(retries=retries)
        self.jobs = {job.run_id: job for job in map(self.job, range(4))}
        self.view, ledger = Said(), Ledger(self.store.ledger)
        self.callbacks = RunCallbacks(self.jobs, ledger, Said(), self.view)
        config = together([job.settings(spec, self.store) for job in self.jobs.values()])
        self.trial = Recorded("trial", config=config, max_failures=100, stub=True)
        self.trial.local_path = str(root)
        self.callbacks.on_trial_start(0, [self.trial], self.trial)

    def job(self, number):
        config = parse({"optim": {"lr": 0.1 + number, "epochs": 2, "global_batch": 8, "norm_batch": 2}})
        name = f"run{number}"
        return Job("study", Run("arm", name, 0, config, {}, None), name, Place(out_dir=self.out(name)))

    def out(self, name):
        return self.store.run_dir(name)

    def dies(self, error):
        """The process dies, and Tune starts another; the runs that it trains side by side."""
        self.trial.handle_error(error)
        assert self.trial.should_recover()
        self.callbacks.on_trial_recover(1, [self.trial], self.trial)
        return self.starts()

    def starts(self):
        self.view.clear()
        self.callbacks.on_trial_start(1, [self.trial], self.trial)
        return [name for said, name, *_ in self.view if said == "started"]

    def reports(self, name, **what):
        self.callbacks.on_trial_result(1, [self.trial], self.trial, {"run_id": name, **what})

    @property
    def left(self):
        return [job["run_id"] for job in self.trial.config["jobs"]]

    @property
    def lost(self):
        return [sum(retry["cause"] == "lost" for retry in read_retries(self.out(name))) for name in self.jobs]

    def status(self, name):
        return self.callbacks.ledger.run(name).status


@pytest.fixture
def make(tmp_path):
    """make(retries): a bench."""
    return lambda **retries: Bench(tmp_path / "store", Retries(**retries))


def test_a_run_that_kills_its_process_takes_the_budgets_of_others_at_most_until_it_is_alone(make):
    bench = make(lost=3)
    assert bench.dies(ActorDiedError()) == ["run0", "run1"]
    assert bench.lost == [1, 1, 1, 1]
    assert bench.dies(ActorDiedError()) == ["run0"]
    assert bench.lost == [2, 2, 1, 1], "those that waited spend nothing"
    assert bench.dies(ActorDiedError()) == ["run0"]
    assert bench.dies(ActorDiedError()) == ["run1"], "the budget of run0 is spent"
    assert bench.lost == [3, 2, 1, 1]
    assert [bool(job["refused"]) for job in bench.trial.config["jobs"]] == [True, False, False, False]
    assert bench.trial.max_failures == 100, "the others go on"


def test_a_machine_taken_back_halves_no_cohort(make):
    bench = make(lost=0)
    error = ActorDiedError()
    error._preempted = True
    assert bench.dies(error) == ["run0", "run1", "run2", "run3"]
    assert bench.lost == [0, 0, 0, 0]


def test_memory_that_holds_no_cohort_costs_no_run_an_attempt_until_it_is_alone(make):
    bench = make(memory="auto")
    assert bench.dies(SHORT) == ["run0", "run1"]
    assert bench.dies(SHORT) == ["run0"]
    assert not any(read_retries(bench.out(name)) for name in bench.jobs)
    bench.dies(SHORT)
    assert [line["micro_batch"] for line in read_retries(bench.out("run0"))] == [4]


def test_a_gpu_that_fails_costs_each_run_of_its_process_an_attempt_and_halves_no_cohort(make):
    bench = make(device=1, lost=0)
    fault = Failure("device", "the GPU of here failed (CUDA error: uncorrectable ECC error encountered)")
    for name in bench.jobs:
        bench.out(name).mkdir(parents=True)
        run_folder.write_failure(bench.out(name), *fault)
    assert bench.dies(ActorDiedError()) == ["run0", "run1", "run2", "run3"]
    assert [[retry["cause"] for retry in read_retries(bench.out(name))] for name in bench.jobs] == [["device"]] * 4
    bench.dies(ActorDiedError())
    assert [job["refused"] for job in bench.trial.config["jobs"]] == [fault._asdict()] * 4
    assert bench.trial.max_failures == 0, "no run is left that may train"


def test_a_gpu_that_fails_under_several_runs_has_failed_once(make, monkeypatch):
    bench, counted = make(device=1), []

    def train(jobs, send, leaves):
        assert len(jobs) == 4
        for job in jobs:
            run_folder.write_failure(Path(job["place"]["out_dir"]), "device", "CUDA error: an illegal memory access")

    monkeypatch.setattr(trial_module, "train_workers", train)
    monkeypatch.setattr(trial_module, "gpu_failed", lambda launch, failure: counted.append(failure.cause))
    monkeypatch.setattr(trial_module.os, "_exit", sys.exit)
    with pytest.raises(SystemExit):
        trial_module.trial(bench.trial.config)
    assert counted == ["device"]


def finish(bench, name):
    for epoch in (1.0, 2.0):
        run_folder.append_epoch(bench.out(name), {"epoch": epoch, "val/miou": 1.0})
    result = {"run_id": name, "last": {"epoch": 2.0, "val/miou": 1.0}, "best": {}, "seconds": 1.0}
    run_folder.write_result(bench.out(name), result)


def test_each_run_is_recorded_when_it_ends_and_a_new_process_trains_those_that_are_left(make):
    bench = make(lost=3, bug=1)
    for name in bench.jobs:
        bench.out(name).mkdir(parents=True)
        bench.reports(name, epoch=1.0)
    run_folder.write_failure(bench.out("run0"), "nan", "loss is not finite at step 3")
    bench.reports("run0", ended=True)
    assert (bench.status("run0"), bench.left) == ("failed", ["run1", "run2", "run3"])
    bench.reports("run1", epoch=2.0)
    assert bench.status("run1") == "running"
    finish(bench, "run1")
    bench.reports("run1", ended=True)
    assert (bench.status("run1"), bench.left) == ("finished", ["run2", "run3"])
    run_folder.write_failure(bench.out("run2"), "bug", "KeyError")
    bench.reports("run2", ended=True)
    assert bench.status("run2") == "running", "it is tried again when the others have ended"
    finish(bench, "run3")
    bench.reports("run3", epoch=2.0)
    assert bench.dies(ActorDiedError()) == ["run2"], "run3 had finished before its process died"
    assert bench.status("run3") == "finished"
    finish(bench, "run2")
    bench.callbacks.on_trial_complete(1, [bench.trial], bench.trial)
    assert [bench.status(name) for name in bench.jobs] == ["failed", "finished", "finished", "finished"]
    events = [event["event"] for event in bench.callbacks.ledger.events()]
    assert events.count("started") == 4 and bench.left == []


def test_a_run_that_is_asked_to_end_leaves_its_cohort(make):
    bench = make()
    for name in bench.jobs:
        bench.out(name).mkdir(parents=True)
        bench.reports(name, epoch=1.0)
    run_folder.append_epoch(bench.out("run1"), {"epoch": 1.0})
    run_folder.ask_to_end(bench.out("run1"))
    bench.reports("run1", ended=True)
    assert (bench.status("run1"), bench.left) == ("stopped", ["run0", "run2", "run3"])


@pytest.mark.slow
def test_a_trial_tries_its_runs_again_each_by_its_own_failure_and_fewer_where_the_memory_is_short(make, monkeypatch):
    bench = make(bug=1, memory="auto")
    tried = []

    def train(jobs, send, leaves):
        """Two runs at once are too many; run2 has a bug that comes twice."""
        tried.append([job["run_id"] for job in jobs])
        for job in jobs[2:]:
            run_folder.write_failure(Path(job["place"]["out_dir"]), "memory", "no memory left")
        for job in jobs[:2]:
            if job["run_id"] == "run2":
                run_folder.write_failure(Path(job["place"]["out_dir"]), "bug", "KeyError")

    monkeypatch.setattr(trial_module, "train_workers", train)
    trial_module.trial(bench.trial.config)
    assert tried == [["run0", "run1", "run2", "run3"], ["run2", "run3"], ["run2"]]
    assert [line["cause"] for line in read_retries(bench.out("run2"))] == ["bug"]
    assert run_folder.read_failure(bench.out("run2")) == Failure("bug", "KeyError")._asdict()
    assert not any(run_folder.read_failure(bench.out(name)) for name in ("run0", "run1", "run3"))
    tried.clear()
    trial_module.trial(bench.trial.config)
    assert tried[0] == ["run0", "run1"], "other cohorts of this launch need not fail first"


@pytest.mark.slow
def test_runs_that_train_one_after_the_other_report_their_ends(make, monkeypatch):
    bench, told = make(), []
    monkeypatch.setattr(trial_module, "train_workers", lambda *_: None)
    monkeypatch.setattr(trial_module.tune, "report", told.append)
    trial_module.trial({**bench.trial.config, "most": 1})
    assert told == [{"run_id": name, "ended": True} for name in ("run0", "run1", "run2")], "the last by its trial's end"
