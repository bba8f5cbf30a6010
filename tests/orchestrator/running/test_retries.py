"""Budgets by cause, the micro-batch that is halved, and a run that really has too little memory and goes on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ray.exceptions import ActorDiedError, RayTaskError
from ray.tune.experiment import Trial

from ablations.study.plan import Run
from cluster.retries import Retries
from cluster.spec import ClusterSpec
from orchestrator.prepare import jobs
from orchestrator.prepare.jobs import Job
from orchestrator.running.callbacks import RunCallbacks
from orchestrator.running.ray_failures import of_ray
from orchestrator.running.retries import Attempts, halved
from orchestrator.running.shared_searcher import together
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger
from orchestrator.store.run_folder import RETRIES, read_retries
from trainer.config import OptimConfig, UserError, parse
from trainer.files.failure import Failure
from trainer.files.run_folder import read_failure
from trainer.place import Place

ROOT = Path(__file__).parents[3]
LOST, BUG, MEMORY = Failure("lost", "went"), Failure("bug", "broke"), Failure("memory", "no memory left")


def made(root, seed=0, **optim):
    """A run of a study."""
    config = parse({"seed": seed, "optim": {"global_batch": 8, "norm_batch": 2, **optim}})
    place = Place(out_dir=Store(root).run_dir(f"run{seed}"))
    return Job("study", Run("arm", "a", seed, config, {}, None), f"run{seed}", place)


def attempts(root, seed=0, retries=None, workers=1, **optim):
    """The attempts at a run of a study, as its trial and its driver make them."""
    spec = ClusterSpec(retries=retries or Retries(), workers=workers)
    return Attempts(made(root, seed, **optim).settings(spec, Store(root)))


@pytest.mark.parametrize(
    ("batch", "group", "workers", "sizes"),
    [(16, 2, 1, [16, 8, 4, 2]), (12, 4, 1, [12, 4]), (24, 4, 1, [24, 12, 4]), (16, 4, 2, [8, 4]), (8, None, 1, [8])],
)
def test_micro_batches_hold_whole_groups_down_to_one(batch, group, workers, sizes):
    optim = OptimConfig(global_batch=batch, norm_batch=group)
    found = [sizes[0]]
    while (less := halved(optim, workers, found[-1])) is not None:
        found.append(less)
        optim.shares(workers, less)  # raises where it is not allowed
    assert found == sizes


def test_a_cause_spends_its_own_budget_and_no_other(tmp_path):
    tried = attempts(tmp_path, retries=Retries(lost=2, bug=1))
    assert [tried.record_retry(LOST), tried.record_retry(BUG), tried.record_retry(LOST)] == [True, True, True]
    # by whoever counts: the driver, and a process that has just been started
    again = attempts(tmp_path, retries=Retries(lost=2, bug=1))
    assert [again.record_retry(LOST), again.record_retry(BUG)] == [False, False]
    assert [line["cause"] for line in read_retries(again.out)] == ["lost", "bug", "lost"]


def test_a_retry_is_recorded_without_the_passwords_of_its_reason(tmp_path):
    tried = attempts(tmp_path)
    assert tried.record_retry(Failure("lost", "no http://u:hunter2@h"))
    assert [line["reason"] for line in read_retries(tried.out)] == ["no http://***@h"]


@pytest.mark.parametrize("cause", ["user", "nan", "bug", "disk", "teacher"])
def test_what_would_fail_alike_is_not_tried_again_by_default(tmp_path, cause):
    assert not attempts(tmp_path).record_retry(Failure(cause, "why"))
    assert read_retries(tmp_path / "runs" / "run0") == []


def test_another_start_of_the_driver_has_the_whole_budget(tmp_path, monkeypatch):
    tried = attempts(tmp_path, retries=Retries(lost=1))
    assert [tried.record_retry(LOST), tried.record_retry(LOST)] == [True, False]
    assert tried.record_retry(MEMORY) and tried.micro_batch == 4
    monkeypatch.setattr(jobs, "LAUNCH", "another")
    tried = attempts(tmp_path, retries=Retries(lost=1))
    assert tried.record_retry(LOST)
    assert tried.micro_batch is None


def test_a_machine_whose_loss_was_announced_costs_nothing(tmp_path):
    tried = attempts(tmp_path, retries=Retries(lost=1))
    assert all(tried.record_retry(Failure("preempted", "went")) for _ in range(20))
    assert [tried.record_retry(LOST), tried.record_retry(LOST)] == [True, False]


def saves(tried, epochs):
    """The run has so many epochs."""
    tried.out.mkdir(parents=True, exist_ok=True)
    (tried.out / "epochs.jsonl").write_text("".join(f'{{"epoch": {n}}}\n' for n in range(1, epochs + 1)))


@pytest.mark.parametrize(("workers", "lasts"), [((1, 4), True), (2, False)])
def test_machines_that_come_and_go_do_not_end_a_run_that_may_go_on_with_fewer(tmp_path, workers, lasts):
    """A loss counts with those since the last checkpoint; a run that makes none has the budget of any other."""
    tried = attempts(tmp_path, retries=Retries(lost=1), workers=workers)
    made = []
    for epochs in (1, 2, 3, 4):
        saves(tried, epochs)
        made.append(tried.record_retry(LOST))
    assert made == [True, lasts, lasts, lasts]
    assert not tried.record_retry(LOST)
    saves(tried, 3)  # it went back to an earlier checkpoint
    assert not tried.record_retry(LOST)


def test_memory_is_halved_for_the_workers_that_had_too_little(tmp_path):
    tried = attempts(tmp_path, workers=(1, 4))
    tried.workers, tried.used = 2, None
    assert tried.record_retry(MEMORY) and tried.micro_batch == 2


def test_a_line_cut_short_is_no_attempt_and_spoils_none_that_follows(tmp_path):
    tried = attempts(tmp_path)
    assert tried.record_retry(LOST)
    file = tried.out / RETRIES
    file.write_text(file.read_text() + file.read_text()[:40])  # as a power cut leaves it
    assert tried.record_retry(BUG._replace(cause="lost"))
    assert [line["reason"] for line in read_retries(tried.out)] == ["went", "broke"]


def test_too_little_memory_halves_the_micro_batch_of_all_runs_alike(tmp_path):
    first = attempts(tmp_path, seed=0)
    assert first.record_retry(MEMORY) and first.begin() == 4
    other = attempts(tmp_path, seed=1, lr=1.0)
    assert other.begin() == 4, "what differs in seed and rate alone needs as much"
    assert other.record_retry(MEMORY) and other.begin() == 2
    assert [line["micro_batch"] for path in (first.out, other.out) for line in read_retries(path)] == [4, 2]
    assert attempts(tmp_path, seed=2, norm_batch=4).micro_batch is None
    assert attempts(tmp_path, seed=2, workers=2).micro_batch is None
    assert not other.record_retry(MEMORY), "no BatchNorm group can be split"
    told = other.explained(MEMORY).reason
    assert told.startswith("no memory left with micro_batch 2, which a BatchNorm group of 2 (optim.norm_batch) ")
    assert told.endswith("give a run more memory or more workers, or choose a smaller data.size")


@pytest.mark.parametrize("counted_by", ["trial", "driver"])
def test_runs_that_fail_side_by_side_halve_once(tmp_path, counted_by):
    """Where the process died as well, the driver counts, and knows what the run has tried from its folder."""
    runs = [attempts(tmp_path, seed=seed) for seed in range(4)]
    for size in (None, 4, 2):
        assert [run.begin() for run in runs] == [size] * 4
        if counted_by == "driver":
            runs = [attempts(tmp_path, seed=seed) for seed in range(4)]
        assert [run.record_retry(MEMORY) for run in runs] == [size != 2] * 4
    assert all("with micro_batch 2, which a BatchNorm group" in run.explained(MEMORY).reason for run in runs)


FAULT = Failure("device", "the GPU of here failed (CUDA error: uncorrectable ECC error encountered)")
ASSERTED = Failure("device", "the GPU of here failed (CUDA error: device-side assert triggered)")


def test_a_gpu_that_fails_has_a_budget_and_an_assert_that_comes_twice_is_a_bug(tmp_path):
    tried = attempts(tmp_path, retries=Retries(device=2))
    assert [tried.record_retry(FAULT) for _ in range(3)] == [True, True, False]
    assert tried.explained(FAULT) == FAULT
    tried = attempts(tmp_path, seed=1)
    assert [tried.record_retry(each) for each in (FAULT, ASSERTED, FAULT, ASSERTED)] == [True, True, True, False]
    assert tried.explained(ASSERTED).cause == "bug"
    assert "index out of range" in tried.explained(ASSERTED).reason


POISONED = """
import os, sys
from orchestrator.running import trial as module
from trainer.files import run_folder
module.check_here = lambda job: None
module.gpu_failed = lambda launch, failure: print(failure.reason, flush=True)
def train(job):
    run_folder.write_failure(module.Path(job["place"]["out_dir"]), "device", "the GPU of here failed")
module.train_workers = lambda jobs, *more: [train(job) for job in jobs]
import json
module.trial(json.loads(sys.argv[1]))
print("still here")
"""


@pytest.mark.slow
def test_the_process_of_a_failed_gpu_ends_and_the_next_one_is_told_why(tmp_path):
    job = made(tmp_path)
    tried = attempts(tmp_path, retries=Retries(device=1))
    config = together([{**tried.job, "place": {**tried.job["place"], "out_dir": str(tried.out)}}])
    command = [sys.executable, "-W", "ignore", "-c", POISONED, json.dumps(config, default=str)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=540)
    assert (done.returncode, done.stdout) == (1, "the GPU of here failed\n"), done.stderr

    trial = Recorded("trial", config=config, max_failures=13, stub=True)
    trial.local_path = str(tmp_path)
    callbacks = RunCallbacks({job.run_id: job}, Ledger(tmp_path / "ledger.jsonl"), None, None)
    for refused in (None, "device"):
        trial.handle_error(ActorDiedError())
        callbacks.on_trial_recover(1, [trial], trial)
        assert (trial.config["jobs"][0]["refused"] or {}).get("cause") == refused
    assert [retry["cause"] for retry in read_retries(tried.out)] == ["device"]


def test_halving_can_be_forbidden(tmp_path):
    tried = attempts(tmp_path, retries=Retries(memory=0))
    assert not tried.record_retry(MEMORY)
    assert "with micro_batch 8, and retries.memory is 0; " in tried.explained(MEMORY).reason


class Recorded(Trial):
    """Tune's own, that counts and decides; its files lie where a test says, for Ray does not run."""

    local_path = None


@pytest.mark.parametrize(
    ("error", "starts"),
    [
        # raised before the trial reads that it is refused, which it reads where it sees the store
        (RayTaskError("trial", "Traceback ...", UserError("store /s must be one folder")).as_instanceof_cause(), 2),
        (ActorDiedError(), 5),
    ],
)
def test_a_trial_without_a_budget_is_started_once_more_to_say_so_and_no_more(tmp_path, error, starts):
    job = made(tmp_path)
    trial = Recorded("trial", config=together([attempts(tmp_path).job]), max_failures=13, stub=True)
    trial.local_path = str(tmp_path)
    callbacks = RunCallbacks({job.run_id: job}, Ledger(tmp_path / "ledger.jsonl"), None, None)
    for number in range(1, 20):
        trial.handle_error(error)
        if not trial.should_recover():
            break
        callbacks.on_trial_recover(number, [trial], trial)
    assert number == starts
    assert trial.config["jobs"][0]["refused"]["cause"] == of_ray(error).cause


HUNGRY = """
import resource, sys
from pathlib import Path
from ablations.study.plan import Run
from cluster.spec import ClusterSpec
from orchestrator.prepare.jobs import Preparer
from orchestrator.store.folder import Store
from orchestrator.running.trial import trial
from trainer.config import parse

size = [160, 320]
config = parse({
    "data": {"name": "scenes", "size": size, "options": {"train": 16, "val": 2, "size": size}},
    "student": {"name": "segformer_tiny"},
    "optim": {"lr": 1.0e-3, "epochs": 1, "global_batch": 16, "norm_batch": 2},
})

def train(root, micro_batch):
    store, spec = Store(Path(root)), ClusterSpec(micro_batch=micro_batch)
    store.identity
    job = Preparer("study", spec, store, {}).job(Run("arm", "a", 0, config, {}, None), {})
    trial({"jobs": [job.settings(spec, store)], "most": 1})
    print(job.place.out_dir)

train(sys.argv[1], 2)  # what a first run loads is there from now on
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[3]) * 2**20, resource.RLIM_INFINITY))
train(sys.argv[2], None)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is kept by Linux")
def test_a_run_with_too_little_memory_goes_on_with_less_of_it_and_computes_the_same(tmp_path):
    # one arena: what a thread reserves and does not use counts, too
    env = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "PATH": "/usr/bin:/bin"}
    room = 260  # MiB: a pass of 16 samples needs 350, one of 2 samples 180
    command = [sys.executable, "-W", "ignore", "-c", HUNGRY, tmp_path / "ample", tmp_path / "scarce", str(room)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=540)
    ample, scarce = map(Path, done.stdout.splitlines())
    lines = read_retries(scarce)
    sizes = [line["micro_batch"] for line in lines]
    assert sizes and sizes == [8, 4, 2][: len(sizes)]
    assert {line["cause"] for line in lines} == {"memory"}
    assert read_failure(scarce) is None
    given, found = (json.loads((out / "result.json").read_text()) for out in (ample, scarce))
    assert (given["micro_batch"], found["micro_batch"]) == (2, sizes[-1])
    for name in ("loss", "loss/ce"):
        assert found["last"][name] == pytest.approx(given["last"][name], rel=1e-5)
