"""Results: what the ledger says of a study's runs, as the table people read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablations.statistics.outcome import Outcome
from ablations.study.schema import Study
from orchestrator.store.ledger import Ledger, LedgerRun

STATUS = {"finished": "finished", "failed": "failed"} | dict.fromkeys(("running", "interrupted", "stopped"), "running")


def of_study(study: Study, ledger: Ledger) -> dict[str, LedgerRun]:
    """The study's runs by config key. Where data or numerics changed, the run that the study used last."""
    found: dict[str, LedgerRun] = {}
    latest: dict[str, str] = {}
    for event in ledger.events():
        if event.get("study") == study.name and "run_id" in event:
            latest[event["key"]] = event["run_id"]
    runs = ledger.outcomes()
    for key, run_id in latest.items():
        found[key] = runs[run_id]
    return found


def known(study: Study, ledger: Ledger) -> dict[str, LedgerRun]:
    """`of_study`, and by config key what other studies have finished: runs that need not be run again."""
    finished = {run.key: run for run in ledger.outcomes().values() if run.status == "finished"}
    return finished | of_study(study, ledger)


def outcome(run: LedgerRun) -> Outcome:
    """A ledger's run in the table's words."""
    return Outcome(STATUS.get(run.status, "missing"), run.last, run.why, run.best)  # type: ignore[arg-type]


def hardware(environment: Mapping[str, Any]) -> str:
    """A run's hardware as a table says it: `cpu (x86_64, 1 thread)`, `cuda (NVIDIA H100)`. GPUs of one kind are one."""
    device = str(environment.get("device", "")).partition(":")[0]
    parts = [environment.get("device_name") or (environment.get("processor") if device == "cpu" else None)]
    if device == "cpu" and (threads := environment.get("threads")):
        parts.append(f"{threads} thread{'s' if threads != 1 else ''}")
    named = ", ".join(str(part) for part in parts if part)
    return f"{device} ({named})" if named else device
