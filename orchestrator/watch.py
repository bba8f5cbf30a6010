"""What the driver does when a run starts, reports and ends: ledger first, then tracking and the view."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ray import tune
from ray.tune.progress_reporter import TrialProgressCallback

from orchestrator.jobs import Job
from orchestrator.ledger import Ledger
from orchestrator.mirror import Mirror
from orchestrator.progress import View
from orchestrator.session import go_on
from trainer.record import read_epochs, read_failure, read_result


class Ending(NamedTuple):
    """How a run ended: its status, what the ledger keeps of it, and a note for people."""

    status: str
    facts: dict[str, Any]
    note: str


def ending(out: Path, error: str) -> Ending:
    """How the run in folder `out` ended. The folder knows best; `error` is what Ray saw, if anything."""
    result, failure = read_result(out), read_failure(out)
    if result is not None:
        facts = {name: result[name] for name in ("last", "best", "complexity", "environment", "seconds")}
        return Ending("finished", facts, f"mIoU {result['last']['val/miou']:.2f}  {result['seconds']:.0f} s")
    if failure is not None:
        return Ending("failed", dict(failure), failure["reason"])
    if error:
        return Ending("failed", {"cause": "process", "reason": error}, error)
    last = (read_epochs(out) or [{"epoch": 0.0}])[-1]
    return Ending("stopped", {"last": last}, f"at epoch {last['epoch']:.0f}")


class Silence(TrialProgressCallback):
    """Takes the place of Tune's own printer, which speaks of trials without results whatever its verbosity."""

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Nothing."""

    def log_result(self, trial: Any, result: dict[str, Any], error: bool = False) -> None:
        """Nothing."""


class Watch(tune.Callback):
    """Tune tells it of trials; it tells ledger, tracking and view of runs."""

    def __init__(self, jobs: Mapping[str, Job], ledger: Ledger, mirror: Mirror, view: View) -> None:
        self.jobs = jobs
        self.ledger = ledger
        self.mirror = mirror
        self.view = view

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles this for a restore of its own; ours reads the ledger."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process is about to train."""
        go_on()
        job = self._job(trial)
        self.ledger.append(job.event("started"))
        self.view.started(job)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """An epoch is done."""
        go_on()
        job = self._job(trial)
        self.view.epoch(job, {name: value for name, value in result.items() if isinstance(value, int | float)})
        self.mirror.job(job, "running")

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
        end = ending(job.place.out_dir, error)
        self.ledger.append(job.event(end.status, **end.facts))
        self.mirror.job(job, end.status, end.facts.get("reason", ""))
        self.view.ended(job, end.status, end.note)
