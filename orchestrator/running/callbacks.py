"""RunCallbacks: what the driver records when a run starts, reports and ends: ledger, then tracking and view."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.result import AUTO_RESULT_KEYS

from orchestrator.prepare.jobs import Job
from orchestrator.running.ray_failures import of_trial
from orchestrator.running.ray_session import raise_if_interrupted
from orchestrator.running.retries import Attempts
from orchestrator.store.full_disk import full
from orchestrator.store.ledger import Ledger
from orchestrator.store.run_folder import copy_from_folder, copy_retries, ending
from orchestrator.terminal.log_lines import View
from orchestrator.tracking.mirror import Mirror
from trainer.files import run_folder
from trainer.files.failure import Failure

LOOK_S = 1.0
START_S = 15.0
"""A process needs up to so many seconds to start and import torch."""


class Silence(TrialProgressCallback):
    """Replaces Tune's progress printer, which reports trials without results at any verbosity."""

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Nothing."""

    def log_result(self, trial: Any, result: dict[str, Any], error: bool = False) -> None:
        """Nothing."""


class RunCallbacks(tune.Callback):
    """Tune's callback: passes the events of trials to ledger, tracking and view."""

    def __init__(
        self,
        jobs: Mapping[str, Job],
        ledger: Ledger,
        mirror: Mirror,
        view: View,
        waits: Callable[[str], bool] = lambda run_id: False,
    ) -> None:
        self.jobs = jobs
        self.ledger = ledger
        self.mirror = mirror
        self.view = view
        self.waits = waits
        """Whether a run whose process has ended may continue: its search decides later, and calls `over` if not."""
        self._since: dict[str, float] = {}
        """Runs that have no place yet -> since when."""
        self._looked = 0.0
        self.begun: set[str] = set()
        """Runs that have begun and not ended: a process or group that continues them is no further `started` event."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles this for its own restore, which is not used."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process is about to train, or to ask for the places of its workers."""
        raise_if_interrupted()
        job = self._job(trial)
        if trial.config["job"]["workers"] > 1:
            run_folder.wait_for_workers(job.place.out_dir)
            self._waits(job)
        else:
            self._begins(job)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Once a second: which runs have no place on a machine, and which have got one."""
        raise_if_interrupted()
        if time.monotonic() - self._looked < LOOK_S:
            return
        self._looked = time.monotonic()
        for trial in trials:
            if trial.status not in (Trial.PENDING, Trial.RUNNING):
                continue
            job = self._job(trial)
            if trial.status == Trial.PENDING or (
                trial.config["job"]["workers"] > 1 and run_folder.is_waiting(job.place.out_dir)
            ):
                self._waits(job)
            elif job.run_id in self._since:
                self._begins(job)

    def _waits(self, job: Job) -> None:
        """A run has no place; this is shown once it has lasted longer than the start of a process."""
        since = self._since.setdefault(job.run_id, time.monotonic())
        if since and time.monotonic() - since > START_S:
            self._since[job.run_id] = 0.0
            self.view.queued(job)

    def _begins(self, job: Job) -> None:
        """A run trains: of several workers, all have their places."""
        self._since.pop(job.run_id, None)
        if job.run_id not in self.begun:
            self.ledger.append(job.event("started", config=job.run.config.model_dump(mode="json")))
        self.begun.add(job.run_id)
        self.view.started(job)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """An epoch is done."""
        raise_if_interrupted()
        job = self._job(trial)
        if job.run_id in self._since:
            self._begins(job)
        numbers = {name: value for name, value in result.items() if type(value) in (int, float)}
        ours = {name: value for name, value in numbers.items() if name not in AUTO_RESULT_KEYS}
        copy_retries(self.ledger, job.run_id, job.place.out_dir)
        self.ledger.append_epochs(job.run_id, [ours])
        self.view.epoch(job, numbers)
        self.mirror.job(job)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial ended by itself, or was stopped."""
        job = self._job(trial)
        if job.run_id in self._since:
            self._begins(job)
        if self.waits(job.run_id):
            self.view.waits(job)
        else:
            self._end(job, "")

    def over(self, job: Job) -> None:
        """A run that has waited is stopped for good."""
        self._end(job, "")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process raised an error or died, and no retry is left."""
        failure = of_trial(trial)
        self._end(self._job(trial), failure.reason, failure.cause)
        self._pause(failure)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process died, and Tune starts another. Whether it may train depends on the cause's retry budget."""
        job, failure = self._job(trial), of_trial(trial)
        heard = run_folder.read_failure(job.place.out_dir)
        if heard is not None and heard["cause"] == "device":  # why the process ended itself
            failure = Failure(**heard)
        self._pause(failure)
        attempts = Attempts(trial.config["job"])
        if attempts.record_retry(failure):
            copy_retries(self.ledger, job.run_id, job.place.out_dir)
        else:
            trial.config["job"]["refused"] = attempts.explained(failure)._asdict()
            trial.max_failures = 0  # started once more to write the failure into the folder

    def _pause(self, failure: Failure) -> None:
        if failure.cause == "disk":
            raise full(self.ledger.path.parent, failure)

    def _job(self, trial: Any) -> Job:
        return self.jobs[trial.config["job"]["run_id"]]

    def _end(self, job: Job, error: str, cause: str = "lost") -> None:
        self._since.pop(job.run_id, None)
        self.begun.discard(job.run_id)
        copy_from_folder(self.ledger, job.run_id, job.place.out_dir)
        end = ending(job.place.out_dir, error, cause)
        self.ledger.append(job.event(end.status, **end.facts))
        self.mirror.job(job)
        run = self.ledger.run(job.run_id)
        self.view.ended(job, end.status, "; ".join([end.note, *(run.notes if run else ())]))
