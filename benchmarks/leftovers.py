"""Leftovers: what a study left in its store, as far as it must not depend on what happened on the way."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from orchestrator.store.ledger import Ledger
from trainer.config import UserError
from trainer.files import checkpoint
from trainer.files.run_folder import CLOCK


@dataclass
class Left:
    """Of one store; equal for two of one study, but for `weights`, which `differences` compares."""

    tables: dict[str, bytes] = field(default_factory=dict)
    runs: dict[str, Any] = field(default_factory=dict)
    """Run id -> how it ended, its epochs by the ledger, and by its folder."""
    proposals: list[Any] = field(default_factory=list)
    weights: dict[str, Any] = field(default_factory=dict)
    """Run id -> of its last checkpoint."""
    mirrored: dict[str, Any] = field(default_factory=dict)
    """Experiment and run id -> its status and the steps of each metric in MLflow."""


def left(store: Path) -> Left:
    """Read a store. Raises UserError where it contradicts itself: an epoch twice, a run still running."""
    found = Left()
    for path in sorted(store.glob("studies/*/table.*")):
        found.tables[f"{path.parent.name}/{path.name}"] = path.read_bytes()
    events = [event for _, event in Ledger(store / "ledger.jsonl").whole()]
    ends: dict[str, str] = {}
    epochs: dict[str, list[Any]] = {}
    for event in events:
        if event["event"] in ("started", "finished", "stopped", "failed", "interrupted"):
            ends[event["run_id"]] = event["event"]
        elif event["event"] == "epoch":
            epochs.setdefault(event["run_id"], []).append(_timeless(event["metrics"]))
        elif event["event"] == "trial":
            found.proposals.append([event["number"], event["values"], event["run_id"]])
    finished = Counter(event["run_id"] for event in events if event["event"] == "finished")
    if twice := [run_id for run_id, count in finished.items() if count > 1]:
        raise UserError(f"run {twice[0]}: it has finished {finished[twice[0]]} times")
    for run_id, end in ends.items():
        file = store / "runs" / run_id / "epochs.jsonl"
        own = [_timeless(json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []
        if own != sorted(epochs.get(run_id, []), key=lambda epoch: epoch["epoch"]):
            raise UserError(f"run {run_id}: the ledger does not hold each epoch of its folder once")
        if end in ("started", "interrupted"):
            raise UserError(f"run {run_id}: the ledger ends with {end}")
        found.runs[run_id] = [end, own]
        last = store / "runs" / run_id / "last.pt"
        try:
            found.weights[run_id] = checkpoint.load(last)["model"] if last.exists() else {}
        except checkpoint.DamagedError:
            if end != "stopped":  # which nobody goes on with: what is cut short after its last epoch stays so
                raise
    found.mirrored = mirrored(store / "mlflow.db")
    _nothing_runs(store / "optuna.db", "trials", "state")
    return found


def mirrored(database: Path) -> dict[str, Any]:
    """`EXPERIMENT: RUN ID` -> [MLflow's status, (metric, step) sorted]. Raises UserError on a second run or point, and
    on RUNNING."""
    _nothing_runs(database, "runs", "status")
    with contextlib.closing(sqlite3.connect(database)) as connection:
        names = """select run_uuid, experiments.name || ': ' || value from tags join runs using (run_uuid)
            join experiments using (experiment_id) where tags.key = 'transkd.run_id'"""
        by_id = dict(connection.execute(names))
        states = dict(connection.execute("select run_uuid, status from runs"))
        points: dict[str, list[Any]] = {run: [] for run in by_id}
        for run, key, step in connection.execute("select run_uuid, key, step from metrics"):
            if run in points and not key.startswith("system/"):
                points[run].append((key, step))
    twice = [name for name, count in Counter(by_id.values()).items() if count > 1]
    twice += [by_id[run] for run, seen in points.items() if len(set(seen)) < len(seen)]
    if twice:
        raise UserError(f"MLflow holds run {twice[0]} twice, or a point of it")
    return {by_id[run]: [states[run], sorted(seen)] for run, seen in points.items()}


def _nothing_runs(database: Path, table: str, column: str) -> None:
    if database.exists():
        with contextlib.closing(sqlite3.connect(database)) as connection:
            (count,) = connection.execute(f"select count(*) from {table} where {column} = 'RUNNING'").fetchone()
        if count:
            raise UserError(f"{count} are still RUNNING in {database.name}")


def _timeless(metrics: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in metrics.items() if not k.startswith(CLOCK)}


def differences(ours: Left, theirs: Left) -> Iterator[str]:
    """What two stores of one study do not have in common, in words."""
    for name in ("tables", "runs", "mirrored"):
        mine, other = getattr(ours, name), getattr(theirs, name)
        for key in sorted(mine.keys() | other.keys()):
            if mine.get(key) != other.get(key):
                yield f"{name}: {key}: {mine.get(key)} against {other.get(key)}"
    if ours.proposals != theirs.proposals:
        yield f"proposals: {ours.proposals} against {theirs.proposals}"
    for run_id in ours.weights.keys() & theirs.weights.keys():
        mine, weights = ours.weights[run_id], theirs.weights[run_id]
        if mine.keys() != weights.keys() or not all(torch.equal(mine[name], weights[name]) for name in weights):
            yield f"weights of run {run_id}"
