"""A study whose driver, workers and Ray are killed at random moments ends as the one that nothing disturbed."""

from __future__ import annotations

import importlib
import os
import random
import shutil
import sqlite3
import sys
import time
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from orchestrator.store.ledger import Ledger
from trainer.config import UserError

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.chaos]

JOURNAL = "journals/tiny.jsonl"
SEED = "TRANSKD_CHAOS_SEED"
"""Repeats the choices of a round; the moments are the machine's."""


@pytest.fixture
def chaos(monkeypatch):
    """benchmarks/chaos.py, which does the same fifty times."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("chaos")


@pytest.fixture
def leftovers(monkeypatch):
    """benchmarks/leftovers.py, which compares stores."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("leftovers")


def half_way(driver):
    """An arm has finished, and another is past its first epoch and not at its end."""
    ended = {event["run_id"] for event in driver.events("finished", "failed")}
    arms_done = any(event["role"] == "arm" for event in driver.events("finished"))
    begun = [event for event in driver.events("started") if event["run_id"] not in ended]
    return arms_done and any(
        0 < len(driver.epochs(event["run_id"])) < event["config"]["optim"]["epochs"] for event in begun
    )


def training(driver):
    """Processes that a driver of this store has for its runs; an agent of Ray's may linger, and trains nothing."""
    return [command for command in driver.processes().values() if "ray::" in command and "Agent" not in command]


def mirrored(driver):
    """(arm, seed) -> MLflow's runs of it, and the statuses of all runs, the study's own included."""
    client = MlflowClient(tracking_uri=f"sqlite:///{driver.store}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("transkd/tiny").experiment_id])
    found = {}
    for run in runs:
        tags = run.data.tags
        if tags["transkd.role"] not in ("study", "seeds"):
            steps = [point.step for point in client.get_metric_history(run.info.run_id, "loss")]
            found.setdefault((tags["transkd.arm"], int(tags["transkd.seed"])), []).append((run.info.status, steps))
    return found, {run.info.status for run in runs}


@pytest.mark.timeout(1200)
def test_a_study_killed_three_times_ends_as_if_it_never_was(driver, finished, tmp_path, chaos, leftovers):
    """Its driver half way, then a worker and the whole of Ray at random moments."""
    seed = int(os.environ.get(SEED) or random.randrange(10**6))
    spec = tmp_path / "spec.yaml"
    spec.write_text("retries: {lost: 1000}\n")
    command = [sys.executable, "-m", "orchestrator", "run", str(finished.file), "--cluster", str(spec)]
    disturbed = chaos.Chaos(driver.store, command, seed)
    targets = random.Random(seed).sample(["worker", "ray"], 2)
    try:
        driver.kill_when(disturbed.start(), lambda: half_way(driver))
        ended = {event["run_id"] for event in driver.events("finished", "failed")}
        cut = {event["run_id"] for event in driver.events("started")} - ended
        assert cut
        end = time.monotonic() + 60
        while training(driver) and time.monotonic() < end:
            time.sleep(0.2)
        assert not training(driver), "what trains goes with its driver"
        complete = {run_id for run_id in cut if (driver.store / "runs" / run_id / "result.json").exists()}
        said = driver.here("status", finished.file).out
        assert f"{len(cut)} interrupted" in said and "driver: none" in said

        code = disturbed.disturbed(targets)
        told = f"{SEED}={seed}: {'; '.join(disturbed.said)}"
        print(told)
        assert code == finished.done.code == 1, f"{told}\n{disturbed.log.read_text()}"
        wrong = list(leftovers.differences(leftovers.left(disturbed.store), leftovers.left(finished.driver.store)))
        assert not wrong, f"{told}\n{wrong}"
        assert driver.table() == finished.driver.table()
        assert finished.driver.table() in disturbed.log.read_text()

        runs = Ledger(driver.store / "ledger.jsonl").outcomes()
        assert all(runs[run_id].attempts >= 2 for run_id in cut - complete), told
        assert all(runs[run_id].attempts == 1 for run_id in complete), told
        assert all(runs[run_id].attempts == 1 for run_id in ended if runs[run_id].status == "finished"), told
        found, statuses = mirrored(driver)
        expected, _ = mirrored(finished.driver)
        assert found == expected
        assert all(len(copies) == 1 for copies in found.values())
        assert statuses == {"FINISHED", "FAILED"}
    finally:
        left = disturbed.clear()
    assert not left, told


def twice(store):
    lines = (store / JOURNAL).read_text().splitlines()
    epoch = next(line for line in lines if '"event": "epoch"' in line)
    (store / JOURNAL).write_text("\n".join([*lines, epoch, ""]))


def lost(store):
    lines = (store / JOURNAL).read_text().splitlines()
    epoch = next(line for line in lines if '"event": "epoch"' in line)
    (store / JOURNAL).write_text("\n".join([line for line in lines if line != epoch] + [""]))


def running(store):
    with sqlite3.connect(store / "mlflow.db") as database:
        database.execute("update runs set status = 'RUNNING' where rowid = (select min(rowid) from runs)")


def point(store):
    with sqlite3.connect(store / "mlflow.db") as database:
        columns = [row[1] for row in database.execute("pragma table_info(metrics)")]
        other = ", ".join("timestamp + 1" if name == "timestamp" else name for name in columns)
        database.execute(f"insert into metrics select {other} from metrics where key = 'loss' limit 1")


def table(store):
    (store / "studies" / "tiny" / "table.txt").write_text("another")


def weight(store):
    path = sorted(store.glob("runs/*/last.pt"))[0]
    state = torch.load(path, weights_only=True)
    next(iter(state["model"].values())).view(-1)[0] += 1
    torch.save(state, path)


@pytest.mark.parametrize("fault", [twice, lost, running, point, table, weight])
def test_the_comparison_sees_every_fault(finished, tmp_path, leftovers, fault):
    store = shutil.copytree(finished.driver.store, tmp_path / "faulty")
    undisturbed = leftovers.left(finished.driver.store)
    assert not list(leftovers.differences(leftovers.left(store), undisturbed))
    fault(store)
    try:
        found = list(leftovers.differences(leftovers.left(store), undisturbed))
    except UserError as error:
        found = [str(error)]
    assert found
