"""Two workers a run compute what one computes in two halves, bit by bit; they outlive a run, and one may die. They
import our packages though others of these names stand in the working directory."""

import contextlib
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

from orchestrator.store.ledger import Ledger

pytestmark = [pytest.mark.slow, pytest.mark.ray]

EPOCHS = 8
"""More than the workers train while one of them is found and killed."""

SPEC = {"cpus_per_worker": 0.5, "concurrency": 1, "start_timeout_s": 240}


def test_two_workers_equal_two_halves_and_a_killed_worker_is_replaced(driver, study, begun, in_the_way, tmp_path):
    file = study("split", variants={"taught": {"optim.epochs": EPOCHS}}, seeds=[0])
    halves, pair = tmp_path / "halves.yaml", tmp_path / "pair.yaml"
    halves.write_text(yaml.safe_dump({**SPEC, "micro_batch": 4}))
    pair.write_text(yaml.safe_dump({**SPEC, "workers": 2}))

    alone = type(driver)(begun(tmp_path / "alone" / "store"))
    assert alone("run", file, "--cluster", halves).code == 0

    in_the_way(driver.store.parent, "trainer", "cluster/__init__", "ablations/__init__")
    process = driver.start("run", file, "--cluster", pair)
    killed = kill_a_worker(driver, process)
    out, err = process.communicate(timeout=540)
    assert process.returncode == 0, out + err
    assert killed not in driver.processes()
    # Run ids are part of the keys: neither the workers nor the halves are part of what a run is.
    assert driver.numbers() == alone.numbers()
    assert {arm: len(epochs) for (arm, _, _), epochs in driver.numbers().items()} == {
        "teacher segformer_mini": 2,
        "taught": EPOCHS,
    }
    assert driver.table("split") == alone.table("split")
    runs = Ledger(driver.store / "ledger.jsonl").outcomes().values()
    assert {run.members[0].arm: (run.attempts, run.failures) for run in runs} == {
        "teacher segformer_mini": (1, {}),
        "taught": (2, {"lost": 1}),
    }


SOUGHT = {
    "base": {
        "data": {"name": "scenes", "size": [64, 128], "select": 0.25, "options": {"train": 16, "val": 4}},
        "student": {"name": "segformer_tiny"},
        "optim": {"lr": 3.0e-3, "epochs": 4, "global_batch": 4},
    },
    "search": {"trials": 5, "stop": "asha", "startup": 2, "space": {"optim.lr": {"log": [1.0e-5, 1.0e-1]}}},
    "variants": None,
    "seeds": None,
}


def test_the_trials_of_a_search_train_in_the_same_workers_those_after_a_stopped_one_too(driver, study, tmp_path):
    spec = tmp_path / "pair.yaml"
    spec.write_text(yaml.safe_dump({**SPEC, "workers": 2}))
    process = driver.start("run", study("sought", **SOUGHT), "--cluster", spec)
    seen, end = Counter(), time.monotonic() + 400
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.1)
        seen.update(pid for pid, command in driver.processes().items() if "TrainWorker" in command)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    lasting = [pid for pid, times in seen.items() if times > 3]  # a fork is called as its worker until it is replaced
    assert len(lasting) == 2
    ends = driver.events("finished", "stopped", "failed")
    assert len(ends) == 5
    assert {event["event"] for event in ends[:-1]} == {"finished", "stopped"}
    for event in ends:
        epochs = len(driver.epochs(event["run_id"]))
        assert epochs == 4 if event["event"] == "finished" else epochs in (1, 3), "asha stops at its rungs alone"


def workers(driver):
    """The workers of the group, without their forks: one is called as its worker until it is replaced."""
    found = {pid for pid, command in driver.processes().items() if "TrainWorker" in command}
    return {pid for pid in found if parent(pid) not in (None, *found)}


def parent(pid):
    """The id of a process's parent; None where the process has ended."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return None


def kill_a_worker(driver, process):
    """SIGKILL one of the two workers of `taught` while it trains; its id."""
    end = time.monotonic() + 540
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
        started = [event["run_id"] for event in driver.events("started") if event["arm"] == "taught"]
        if started and driver.epochs(started[0]):
            found = sorted(workers(driver))
            assert len(found) == 2, driver.processes()
            os.kill(found[0], signal.SIGKILL)
            return found[0]
    pytest.fail(f"no worker to kill: {process.communicate()}")
