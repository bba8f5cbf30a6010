"""Each cause of a failure spends its own budget, attempts are counted, and a GPU that fails is not met again."""

import json
import re

import pytest

from orchestrator.store.ledger import Ledger

pytestmark = [pytest.mark.slow, pytest.mark.ray]

HARMING = """
import json, os, signal, sys
from pathlib import Path
from ablations.study.schema import load
from cluster.retries import Retries
from cluster.spec import ClusterSpec
from orchestrator.launch import Launch
from orchestrator.runs_left import unfinished
from orchestrator.tracking.mirror import Mirror
from orchestrator.terminal.log_lines import StudyProgress, Lines
from orchestrator.store.folder import Store
from rich.console import Console

deaths = {"survives": [1], "dies": [1, 2]}  # arm -> epochs after which its process is killed
class Harming(Lines):
    def epoch(self, job, metrics):
        super().epoch(job, metrics)
        if metrics["epoch"] in deaths.get(job.run.arm, ()):
            deaths[job.run.arm].remove(metrics["epoch"])
            os.kill(metrics["pid"], signal.SIGKILL)

store = Store(Path(sys.argv[2]))
study = load(sys.argv[1])
spec = ClusterSpec(cpus_per_worker=0.5, concurrency=1, retries=Retries(lost=1, bug=1, nan=0))
job = Launch(study, spec, store, {})
job.prepare(lambda text: None)
for run in job.state.runs:
    if run.plan.arm == "buggy":  # what no code of ours expects
        (store.run_dir(run.run_id) / ".best.pt.1").mkdir(parents=True)
with store.leases.study(study.name):
    job.run(Mirror(study.name, store), lambda: Harming(Console(file=sys.stderr), StudyProgress(job.state)))
print(json.dumps(unfinished(job.state)))
"""


def test_each_cause_spends_its_own_budget(driver, study):
    arms = {
        "survives": {},
        "dies": {"optim.lr": 2.0e-3},
        "buggy": {"optim.lr": 3.0e-3},
        "broken": {"optim.lr": 1.0e9},
    }
    base = {
        "data": {"name": "scenes", "size": [32, 64], "options": {"train": 8, "val": 2, "size": [32, 64]}},
        "student": {"name": "segformer_tiny"},
        "optim": {"lr": 1.0e-3, "epochs": 3, "global_batch": 4},
    }
    file = study("harmed", base=base, variants=arms, seeds=[0])
    done = driver.script(HARMING, file, driver.store)
    assert done.code == 0, done.err

    runs = {run.members[0].arm: run for run in Ledger(driver.store / "ledger.jsonl").outcomes().values()}
    assert {arm: (run.status, run.attempts, run.failures) for arm, run in runs.items()} == {
        "survives": ("finished", 2, {"lost": 1}),
        "dies": ("failed", 2, {"lost": 2}),
        "buggy": ("failed", 2, {"bug": 2}),
        "broken": ("failed", 1, {"nan": 1}),
    }
    assert [len(runs[arm].epochs) for arm in ("survives", "dies")] == [3, 2]
    reasons = json.loads(done.out.splitlines()[-1])
    assert reasons["dies seed 0"] == "lost (2 times): a process of the run or its machine died (SYSTEM_ERROR)"
    assert reasons["buggy seed 0"].startswith("bug (2 times): IsADirectoryError: ")
    assert "(trainer/files/run_folder.py:" in reasons["buggy seed 0"]
    assert reasons["broken seed 0"].startswith("nan: loss/ce is not finite at step ")
    assert (driver.store / "runs" / runs["buggy"].run_id / "traceback.txt").read_text().startswith("Traceback ")


TO_DO = """
import sys
from pathlib import Path
from ablations.study.schema import load
from cluster.spec import ClusterSpec
from orchestrator.launch import Launch
from orchestrator.runs_left import count_left, unfinished
from orchestrator.store.folder import Store
from orchestrator.verbs.run import launch

for retry_failed in (False, True):
    job = Launch(load(sys.argv[1]), ClusterSpec(), Store(Path(sys.argv[2])), {}, retry_failed=retry_failed)
    job.prepare(lambda text: None)
    print(count_left(job.state), len(unfinished(job.state)))
sys.exit(launch(sys.argv[1]))
"""


def test_a_loss_that_was_not_finite_is_computed_again_only_where_asked(finished):
    """The run id names all that it depends on: it would fail alike, and one of seven runs would be paid for again."""
    before = finished.driver.events("started")
    done = finished.driver.script(TO_DO, finished.file, finished.driver.store)
    assert done.code == 2
    assert done.out.splitlines()[:2] == ["0 2", "2 2"]
    assert "tiny: 7 runs, 0 to do" in done.out
    last = done.err.splitlines()[-1]
    assert re.fullmatch(r"failed: 2 of 7 runs, .*; runs with a NaN loss are only retried with --retry-failed", last)
    assert finished.driver.events("started") == before


FAULTY = """
import os, sys, time
from pathlib import Path
import ray
import yaml
from ray.cluster_utils import Cluster

machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
for _ in range(3):
    machines.add_node(num_cpus=1)
machines.wait_for_nodes()
os.environ["RAY_ADDRESS"] = machines.address

import orchestrator.running.tuner as tuner
from ablations.study.schema import load
from cluster.retries import Retries
from cluster.spec import ClusterSpec
from orchestrator.launch import Launch
from orchestrator.runs_left import unfinished
from orchestrator.store.folder import Store
from orchestrator.terminal.log_lines import Lines, StudyProgress
from orchestrator.tracking.mirror import Mirror
from rich.console import Console


def on_faulty_gpus(config):
    import trainer.worker
    from orchestrator.running.trial import trial

    def fit(runs):
        node = ray.get_runtime_context().get_node_id()
        with (runs[0].place.out_dir.parent / "nodes.txt").open("a") as file:
            file.write(node + chr(10))
        raise RuntimeError("CUDA error: uncorrectable ECC error encountered")

    trainer.worker.fit_together = fit
    trial(config)


tuner.trial = on_faulty_gpus
store = Store(Path(sys.argv[2]))
spec = ClusterSpec(address="auto", concurrency=1, retries=Retries(device=2))
job = Launch(load(sys.argv[1]), spec, store, {})
job.prepare(lambda text: None)
with store.leases.study("faulty"):
    job.run(Mirror("faulty", store), lambda: Lines(Console(file=sys.stderr), StudyProgress(job.state)))
print(*unfinished(job.state).values())
machines.shutdown()
"""


def test_a_run_whose_gpu_fails_is_retried_on_another_machine(driver, study):
    base = {
        "data": {"name": "scenes", "size": [32, 64], "options": {"train": 8, "val": 2, "size": [32, 64]}},
        "student": {"name": "segformer_tiny"},
        "optim": {"lr": 1.0e-3, "epochs": 3, "global_batch": 4},
    }
    done = driver.script(FAULTY, study("faulty", base=base, variants={"plain": {}}, seeds=[0]), driver.store)
    assert done.code == 0, done.err
    assert "device (3 times): the GPU of " in done.out
    assert len(set((driver.store / "runs" / "nodes.txt").read_text().split())) == 3
