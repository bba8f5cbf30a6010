"""Run folders: copy into the ledger what a run's folder holds and the ledger lacks, also after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger
from orchestrator.store.ledger_run import LedgerRun
from orchestrator.store.objects.run_files import RETRIES
from trainer.files.run_folder import has_checkpoint, read_epochs, read_failure, read_notes, read_result, whole_lines

KEPT = ("last", "best", "complexity", "environment", "seconds", "micro_batch", "data", "weights")
"""The fields of result.json that the ledger keeps."""
SCORES = ("select/miou", "val/miou")
"""The metrics that are printed when a run has finished."""


def finished(out: Path, run_id: str) -> dict[str, Any] | None:
    """What the ledger keeps of the run in folder `out`; None unless it has finished and has this id."""
    result = read_result(out)
    if result is None or result["run_id"] != run_id:
        return None
    return {**{name: result[name] for name in KEPT if name in result}, "artifacts": artifacts(out)}


def artifacts(out: Path) -> dict[str, Any]:
    """Where a run's files lie: its folder below the store, and their names."""
    names = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
    return {"folder": f"{out.parent.name}/{out.name}", "files": names}


def checkpoint_lost(store: Store, run: LedgerRun) -> bool:
    """Whether a run that left files, by the ledger, has no last.pt any more."""
    return bool(run.artifacts) and not keeps_checkpoint(store, run.run_id)


def keeps_checkpoint(store: Store, run_id: str) -> bool:
    """Whether a run's last.pt is in the store, here or at its address."""
    if has_checkpoint(store.run_dir(run_id)):
        return True
    return store.shared is not None and store.shared.has_checkpoint(run_id)


def copy_from_folder(ledger: Ledger, run_id: str, out: Path) -> None:
    """Append the epochs, the retries and the notes of a run that its folder has and the ledger lacks."""
    ledger.append_epochs(run_id, read_epochs(out))
    copy_retries(ledger, run_id, out)
    run = ledger.run(run_id)
    for text in read_notes(out)[len(run.notes) if run else 0 :]:
        ledger.append({"event": "note", "run_id": run_id, "text": text})


def copy_retries(ledger: Ledger, run_id: str, out: Path) -> None:
    """Append the retries that the folder has and the ledger lacks."""
    run = ledger.run(run_id)
    for line in read_retries(out)[len(run.retries) if run else 0 :]:
        ledger.append({"event": "retried", "run_id": run_id, **line})


def reconcile(ledger: Ledger, store: Store) -> None:
    """Correct the runs that a dead driver left as `running`: record how they ended. Those of other studies with a
    driver are left to it. Call it under the lease of the study whose journal the ledger writes."""
    drivers = store.leases.drivers().keys() - {ledger.own.stem}
    for run in list(ledger.outcomes().values()):
        if run.status != "running" or run.trained_by in drivers:
            continue
        if (claim := store.leases.claim(run.run_id, "")) is not None:
            try:
                record_end(ledger, store, run.run_id)
            finally:
                claim.give_back()


def record_end(ledger: Ledger, store: Store, run_id: str) -> None:
    """Record how a run ended that a dead driver left as `running`. The caller has its claim."""
    run = ledger.run(run_id)
    if run is None or run.status != "running":
        return
    store.fetch_run(run_id)
    out = store.run_dir(run_id)
    copy_from_folder(ledger, run_id, out)
    facts = finished(out, run_id)
    ended = {"event": "interrupted"} if facts is None else {"event": "finished", **facts}
    ledger.append({**ended, "run_id": run_id, "key": run.key})


def read_retries(out: Path) -> list[dict[str, Any]]:
    """The retries of the run in folder `out`; a damaged or half-written line and those after it are left out."""
    path = out / RETRIES
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1] if path.is_file() else []
    return whole_lines(lines)


class Ending(NamedTuple):
    """How a run ended: its status, the fields for the ledger, and a note for people."""

    status: str
    facts: dict[str, Any]
    note: str


def ending(out: Path, error: str, cause: str = "lost") -> Ending:
    """How the run in folder `out` ended. Its files take precedence over `error` and `cause`, which are what Ray saw."""
    facts, failure = finished(out, out.name), read_failure(out)
    if facts is not None:
        scores = [f"{name} {facts['last'][name]:.2f}" for name in SCORES if name in facts["last"]]
        return Ending("finished", facts, "  ".join([*scores, f"{facts['seconds']:.0f} s"]))
    if failure is not None:
        return Ending("failed", dict(failure), failure["reason"])
    if error:
        return Ending("failed", {"cause": cause, "reason": error}, error)
    last = (read_epochs(out) or [{"epoch": 0.0}])[-1]
    return Ending("stopped", {"last": last}, f"at epoch {last['epoch']:.0f}")


def end_of(ledger: Ledger, store: Store, run_id: str, error: str = "", cause: str = "lost") -> Ending:
    """How a run ended, as `ending`, wherever it was trained. Of one that was stopped on another machine the last epochs
    may not be at the store's address; the driver has heard of them."""
    store.fetch_run(run_id, whole=False)
    end, run = ending(store.run_dir(run_id), error, cause), ledger.run(run_id)
    if store.shared is None or end.status != "stopped" or run is None or not run.epochs:
        return end
    last = max(end.facts["last"], dict(run.epochs[-1]), key=lambda metrics: metrics["epoch"])
    return Ending("stopped", {"last": last}, f"at epoch {last['epoch']:.0f}")
