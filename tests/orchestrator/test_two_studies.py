"""Two studies run at once on one store: what both need is trained once, also where a driver is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import pytest
from mlflow import MlflowClient

from orchestrator.store.folder import Store

pytestmark = [pytest.mark.slow, pytest.mark.ray]

PATIENCE_S = 240


def wait_for(moment):
    end = time.monotonic() + PATIENCE_S
    while not moment():
        assert time.monotonic() < end, "the moment did not come"
        time.sleep(0.05)


def read_until(process, text):
    """What a driver prints, up to a line with this text."""
    said = ""
    while text not in said:
        line = process.stdout.readline()
        assert line, f"{said}\n{process.communicate()}"
        said += line
    return said


def trainers(driver):
    """The processes of Ray that train."""
    return {pid for pid, command in driver.processes().items() if command.startswith("ray::")}


def send(pids, number):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # Ray ends processes by itself, and those of a raylet with it
            os.kill(pid, number)


def test_a_teacher_that_two_studies_need_is_trained_once_by_whoever_is_alive(driver, study):
    teacher = {"teacher": {"name": "segformer_mini", "train": {"epochs": 40}}}
    common = {"seeds": [0], "base": None}
    base = {
        "data": {"name": "scenes", "size": [64, 128], "options": {"train": 16, "val": 8, "size": [64, 128]}},
        "student": {"name": "segformer_tiny"},
        "optim": {"lr": 1.0e-3, "epochs": 1, "global_batch": 8, "norm_batch": 4},
        **teacher,
    }
    one = study("one", **{**common, "base": base}, variants={"csf": {"distill": {"csf": {}}}})
    two = study("two", **{**common, "base": base}, variants={"pea": {"distill": {"pea": {}}}})
    leases = Store(driver.store).leases

    first = driver.start("run", one)
    wait_for(lambda: driver.events("epoch"))
    of_first, frozen = set(driver.processes()), trainers(driver)
    send(frozen, signal.SIGSTOP)
    second = driver.start("run", two)
    said = read_until(second, "seed 0: trained by study one, pid ")
    assert f"trained by study one, pid {first.pid} on " in said
    assert leases.drivers().keys() == {"one", "two"}
    shown = driver.here("status", two).out
    assert "1 running" in shown, "the teacher trains, if not by this driver"

    send([first.pid, *(of_first - {first.pid})], signal.SIGKILL)
    first.communicate()
    wait_for(lambda: len(driver.events("started")) == 2)
    frozen = trainers(driver)
    send(frozen, signal.SIGSTOP)
    again = driver.start("run", one)
    read_until(again, f"trained by study two, pid {second.pid} on ")
    send(frozen, signal.SIGCONT)
    outs = [process.communicate(timeout=PATIENCE_S) for process in (second, again)]
    assert [process.returncode for process in (second, again)] == [0, 0], outs
    assert "finished  trained by study two" in outs[1][0]

    (taught,) = {event["run_id"] for event in driver.events("started") if event["role"] == "teacher"}
    kinds = [event["event"] for event in driver.events() if event.get("run_id") == taught and event["event"] != "epoch"]
    assert kinds == ["started", "interrupted", "started", "finished", "reused"]
    epochs = [event["metrics"]["epoch"] for event in driver.events("epoch") if event["run_id"] == taught]
    assert epochs == [float(epoch) for epoch in range(1, 41)], "the second driver went on where the first was killed"
    assert sorted(event["arm"] for event in driver.events("finished") if event["role"] == "arm") == ["csf", "pea"]
    assert all(
        "±" not in driver.table(name) and arm in driver.table(name) for name, arm in (("one", "csf"), ("two", "pea"))
    )
    assert leases.drivers() == {} and all(not file.read_text() for file in (driver.store / "claims").iterdir())
    client = MlflowClient(f"sqlite:///{driver.store}/mlflow.db")
    for name in ("one", "two"):
        (experiment,) = client.search_experiments(filter_string=f"name = 'transkd/{name}'")
        runs = client.search_runs([experiment.experiment_id])
        assert len(runs) == 3 and {run.info.status for run in runs} == {"FINISHED"}
