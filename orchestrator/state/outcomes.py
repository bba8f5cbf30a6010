"""From a ledger's run to what tables show: its outcome, and the hardware that it ran on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablations.statistics.outcome import Outcome
from orchestrator.store.ledger_run import LedgerRun

STATUS = {"finished": "finished", "failed": "failed"} | dict.fromkeys(("running", "interrupted", "stopped"), "running")


def outcome(run: LedgerRun) -> Outcome:
    """The outcome of a ledger's run."""
    return Outcome(STATUS.get(run.status, "missing"), run.last, run.why, run.best)  # type: ignore[arg-type]


def hardware(environment: Mapping[str, Any]) -> str:
    """The name of a run's hardware: `cpu (x86_64, 1 thread)`, `cuda (NVIDIA H100)`. The number of GPUs is left out."""
    device = str(environment.get("device", "")).partition(":")[0]
    parts = [environment.get("device_name") or (environment.get("processor") if device == "cpu" else None)]
    if device == "cpu" and (threads := environment.get("threads")):
        parts.append(f"{threads} thread{'s' if threads != 1 else ''}")
    named = ", ".join(str(part) for part in parts if part)
    return f"{device} ({named})" if named else device
