"""A study whose driver, workers and Ray are killed at random moments ends as the one that nothing disturbed."""

from __future__ import annotations

import importlib
import os
import random
import shutil
import sqlite3
import sys
from pathlib import Path

import pytest
import torch

from trainer.config import UserError

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.chaos]

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


@pytest.mark.timeout(1200)
def test_a_study_killed_three_times_ends_as_if_it_never_was(finished, tmp_path, chaos, leftovers):
    seed = int(os.environ.get(SEED) or random.randrange(10**6))
    spec = tmp_path / "spec.yaml"
    spec.write_text("retries: {lost: 1000}\n")
    command = [sys.executable, "-m", "orchestrator", "run", str(finished.file), "--cluster", str(spec)]
    disturbed = chaos.Chaos(tmp_path / "disturbed" / "store", command, seed)
    targets = random.Random(seed).sample(chaos.TARGETS, 3)
    try:
        code = disturbed.disturbed(targets)
        told = f"{SEED}={seed}: {'; '.join(disturbed.said)}"
        print(told)
        assert code == finished.done.code, f"{told}\n{disturbed.log.read_text()}"
        wrong = list(leftovers.differences(leftovers.left(disturbed.store), leftovers.left(finished.driver.store)))
        assert not wrong, f"{told}\n{wrong}"
    finally:
        left = disturbed.clear()
    assert not left, told


def twice(store):
    lines = (store / "ledger.jsonl").read_text().splitlines()
    epoch = next(line for line in lines if '"event": "epoch"' in line)
    (store / "ledger.jsonl").write_text("\n".join([*lines, epoch, ""]))


def lost(store):
    lines = (store / "ledger.jsonl").read_text().splitlines()
    epoch = next(line for line in lines if '"event": "epoch"' in line)
    (store / "ledger.jsonl").write_text("\n".join([line for line in lines if line != epoch] + [""]))


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
