"""Sources from the ledger: the data, weights and numerics version of a study's last runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.store.ledger import Ledger
from orchestrator.store.ledger_run import LedgerRun
from trainer.config import NUMERICS_VERSION, Sources, digest, splits_read


def recorded(study: str, ledger: Ledger) -> Sources:
    """The sources of a study's last launch. What its `study` event lacks is taken from finished runs: from the study's
    latest, then from those of other studies."""
    launch: Mapping[str, Any] = {}
    for event in ledger.events():
        if event["event"] == "study" and event.get("study") == study:
            launch = event
    said = launch.get("sources", {})
    data: dict[str, tuple[str, ...]] = {}
    weights: dict[str, str] = {}
    finished = [run for run in ledger.outcomes().values() if run.status == "finished"]
    for run in sorted(finished, key=lambda run: (_is_of(run, study), run.changed)):
        if run.config and run.data:
            data[_data_key(run.config)] = fingerprints(run)
        weights |= _weights(run)
    data |= {key: tuple(prints) for key, prints in said.get("data", {}).items()}
    numerics = said.get("numerics") or launch.get("environment", {}).get("numerics")
    return Sources(numerics or NUMERICS_VERSION, data, weights | said.get("weights", {}))


def fingerprints(run: LedgerRun) -> tuple[str, ...]:
    """The fingerprints of the splits that a run read."""
    return tuple(run.data[split] for split in ("train", "val", "test") if split in run.data)


def origin(run: LedgerRun, sources: Sources, meant: tuple[str, ...] | None, teacher: str | None) -> str:
    """How a run differs from one of its config under `sources`: `numerics version 1`, `other data`, `other weights`,
    `another teacher`. Under `sources`, `meant` are the fingerprints of its data and `teacher` is its teacher's run."""
    numerics = run.environment.get("numerics", sources.numerics)
    if numerics != sources.numerics:
        return f"numerics version {numerics}"
    if run.data and fingerprints(run) != meant:
        return "other data"
    if teacher and run.weights.get("teacher", {}).get("run_id", teacher) != teacher:
        return "another teacher"
    return "other weights" if run.data else "other data or weights"


def _is_of(run: LedgerRun, study: str) -> bool:
    return any(member.study == study for member in run.members)


def _data_key(config: Mapping[str, Any]) -> str:
    """`data_key` of a config as plain data."""
    read = splits_read(config["eval"].get("splits", ["val"]))
    return digest({name: config["data"][name] for name in ("name", "options")} | read)


def _weights(run: LedgerRun) -> dict[str, str]:
    """File name in the config -> sha256 of the file that was read."""
    config, found = run.config, {}
    if config and config["student"]["init"] != "scratch" and "student" in run.weights:
        found[config["student"]["init"]] = run.weights["student"]["sha256"]
    teacher = config.get("teacher") or {}
    if teacher.get("checkpoint") and "teacher" in run.weights:
        found[teacher["checkpoint"]] = run.weights["teacher"]["sha256"]
    return found
