"""What the driver does when a run starts, reports and ends: ledger first, then tracking and the view."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ray import tune

from orchestrator.jobs import Job
from orchestrator.ledger import Ledger
from orchestrator.progress import View
from trainer.record import read_epochs, read_failure, read_result

Mirror = Callable[[Job, str, str], None]
"""Bring tracking up to date with a job: (job, status, reason)."""


class Watch(tune.Callback):
    """Tune tells it of trials; it tells ledger, tracking and view of runs."""

    def __init__(self, jobs: Mapping[str, Job], ledger: Ledger, mirror: Mirror, view: View) -> None:
        self.jobs = jobs
        self.ledger = ledger
        self.mirror = mirror
        self.view = view

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process is about to train."""
        job = self._job(trial)
        self.ledger.append(job.event("started"))
        self.view.started(job)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """An epoch is done."""
        job = self._job(trial)
        self.view.epoch(job, {name: value for name, value in result.items() if isinstance(value, int | float)})
        self.mirror(job, "running", "")

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial ended by itself, or was stopped."""
        self._end(self._job(trial), "")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process raised or died, and no retry is left."""
        lines = str(trial.get_error() or "its process died").strip().splitlines()
        self._end(self._job(trial), lines[-1] if lines else "its process died")

    def _job(self, trial: Any) -> Job:
        return self.jobs[trial.config["job"]["run_id"]]

    def _end(self, job: Job, error: str) -> None:
        """The run's own folder says how it ended; `error` is what Ray saw."""
        out = job.place.out_dir
        result, failure = read_result(out), read_failure(out)
        if result is not None:
            kept = {name: result[name] for name in ("last", "best", "complexity", "environment", "seconds")}
            self.ledger.append(job.event("finished", **kept))
            note = f"mIoU {result['last']['val/miou']:.2f}  {result['seconds']:.0f} s"
            status = "finished"
        elif error or failure:
            status, note = "failed", failure["reason"] if failure else error
            self.ledger.append(job.event("failed", reason=note, cause=failure["cause"] if failure else "process"))
        else:
            last = (read_epochs(out) or [{}])[-1]
            status, note = "stopped", f"at epoch {last.get('epoch', 0):.0f}"
            self.ledger.append(job.event("stopped", last=last))
        self.mirror(job, status, note if status == "failed" else "")
        self.view.ended(job, status, note)
