"""A study in cohorts: its numbers are those of runs alone, bit by bit, whatever kills its processes or its driver.

That trials have theirs too, whichever of them a rung ends, is tested without Ray: test_cohort_resume.py of the trainer.
"""

import pytest
import torch
import yaml

from orchestrator.store.ledger import Ledger

pytestmark = [pytest.mark.slow, pytest.mark.ray]

ONE_PROCESS = {"cpus_per_worker": 0.5, "concurrency": 1}
COHORT = {
    "both": {},
    "broken": {"optim.lr": 1.0e9},
    "csf": {"distill": {"csf": {}}},
    "short": {"distill": {"pea": {}}, "optim.epochs": 2},
    "alone": {"distill": {}},
}
EPOCHS = {"both": 3, "csf": 3, "short": 2, "alone": 3}

HARMING = """
import os, signal, sys
from pathlib import Path
from ablations.study.schema import load
from cluster.spec_file import load as load_spec
from orchestrator.launch import Launch
from orchestrator.store.folder import Store
from orchestrator.terminal.log_lines import Lines, StudyProgress
from orchestrator.tracking.mirror import Mirror
from rich.console import Console

class Harming(Lines):
    \"\"\"Kills the process of the cohort once, then this driver, each after an epoch of `both` that others lack.\"\"\"

    def epoch(self, job, metrics):
        super().epoch(job, metrics)
        if (job.run.arm, metrics["epoch"]) == ("both", 1) and not Path("killed").exists():
            Path("killed").touch()
            os.kill(metrics["pid"], signal.SIGKILL)
        if (job.run.arm, metrics["epoch"]) == ("both", 2):
            os.kill(os.getpid(), signal.SIGKILL)

store, study = Store(Path(sys.argv[2])), load(sys.argv[1])
job = Launch(study, load_spec(sys.argv[3]), store, {})
job.prepare(lambda text: None)
with store.leases.study(study.name):
    job.run(Mirror(study.name, store), lambda: Harming(Console(file=sys.stderr), StudyProgress(job.state)), print)
"""


def weights(driver):
    """(arm, tensor) -> what the runs of a store ended with, their optimisers included."""
    found = {}
    for event in driver.events("finished"):
        state = torch.load(driver.store / "runs" / event["run_id"] / "last.pt", weights_only=True)
        found |= {(event["arm"], name): tensor for name, tensor in state["model"].items()}
        moments = state["optimiser"]["state"]
        found |= {(event["arm"], n, name): t for n, group in moments.items() for name, t in group.items()}
    return found


def assert_equal(driver, alone):
    """Two drivers' stores hold the same runs, epochs and weights, bit by bit."""
    assert driver.numbers() == alone.numbers()
    ours, theirs = weights(driver), weights(alone)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(torch.as_tensor(ours[key]), torch.as_tensor(theirs[key])) for key in ours)


@pytest.fixture
def specs(tmp_path):
    """specs(name, **changes): the file of a cluster spec."""

    def write(name, **changes):
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**ONE_PROCESS, **changes}))
        return path

    return write


def test_a_cohort_computes_what_its_runs_do_alone_though_a_worker_and_the_driver_are_killed(
    driver, study, specs, begun, tmp_path
):
    file = study("cohort", variants=COHORT, seeds=[0])
    alone = type(driver)(begun(tmp_path / "alone" / "store"))
    assert alone("run", file, "--cluster", specs("off", cohort="off")).code == 1
    assert {arm: len(epochs) for (arm, _, _), epochs in alone.numbers().items()} == {
        "teacher segformer_mini": 2,
        **EPOCHS,
    }
    killed = driver.script(HARMING, file, driver.store, specs("auto"))
    assert killed.code == -9, killed.err
    assert "5 runs in 1 cohort of 5, one teacher pass" in killed.out
    assert "broken seed 0: failed" in killed.err
    begun_before = driver.events("started")
    assert len(begun_before) == 6, "a process that goes on is no further start"
    done = driver("run", file, "--cluster", specs("auto"))
    assert done.code == 1, done.err
    assert_equal(driver, alone)
    assert driver.table("cohort") == alone.table("cohort")

    runs = {run.members[0].arm: run for run in Ledger(driver.store / "ledger.jsonl").outcomes().values()}
    assert (runs["broken"].status, runs["broken"].cause) == ("failed", "nan")
    for arm, epochs in EPOCHS.items():
        run = runs[arm]
        assert run.status == "finished"
        assert [epoch["epoch"] for epoch in run.epochs] == list(range(1, epochs + 1))
        assert run.failures == {"lost": 1}, "each spends an attempt of its own"
        assert run.environment["cohort"] > 1
    assert runs["broken"].failures == {"nan": 1}
    assert driver.numbers().keys() == alone.numbers().keys()


SEARCH = {
    "trials": 6,
    "deterministic": True,
    "batch": 3,
    "stop": "asha",
    "eta": 2,
    "startup": 3,
    "space": {"distill.csf.weight": {"log": [1.0e-2, 10.0]}, "distill.pea.weight": {"log": [1.0e-2, 10.0]}},
}


def test_the_trials_of_a_batch_share_a_process_and_a_rung_ends_one_of_them_alone(driver, study, specs):
    base = yaml.safe_load(study("tiny").read_text())["base"]
    base["data"]["select"] = 0.25
    file = study("sought", base=base, variants=None, seeds=None, search=SEARCH)
    done = driver("run", file, "--cluster", specs("auto"))
    assert done.code == 0, done.err
    trials = {event["run_id"] for event in driver.events("trial")}
    ended = [event for event in driver.events("finished", "stopped") if event["run_id"] in trials]
    assert len(ended) == SEARCH["trials"] and {event["event"] for event in ended} == {"finished", "stopped"}
    for event in ended:
        epochs = [epoch["epoch"] for epoch in driver.epochs(event["run_id"])]
        assert epochs == list(range(1, int(event["last"]["epoch"]) + 1))
        assert (len(epochs) == 3) == (event["event"] == "finished"), "the others train on to their end"
    order = [event["event"] for event in driver.events("started", "epoch") if event["run_id"] in trials]
    assert order[:6] == ["started"] * 3 + ["epoch"] * 3, "all begin, and then each trains an epoch"
    assert driver.table("sought").startswith("sought   6 of 6 trials, ")
