"""RunCallbacks: what the driver records when a run starts, reports and ends: ledger, then tracking and view."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.result import AUTO_RESULT_KEYS

from orchestrator.prepare.jobs import Job
from orchestrator.running.group_size import WORKERS
from orchestrator.running.ray_failures import of_trial
from orchestrator.running.ray_session import raise_if_interrupted
from orchestrator.running.retries import Attempts, remember_shortage, side_by_side
from orchestrator.store.folder import Store
from orchestrator.store.full_disk import full
from orchestrator.store.ledger import Ledger
from orchestrator.store.objects.uploads import fetch_failure
from orchestrator.store.run_folder import copy_from_folder, copy_retries, end_of
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
    """Tune's callback: passes the events of trials to ledger, tracking and view, run by run.

    A trial's `config["jobs"]` are the settings of its runs that have not ended: a process that replaces a dead one
    trains these.
    """

    def __init__(
        self,
        jobs: Mapping[str, Job],
        ledger: Ledger,
        mirror: Mirror,
        view: View,
        waits: Callable[[str], bool] = lambda run_id: False,
        ended: Callable[[str], None] = lambda run_id: None,
        avoided: Callable[[], list[str]] = list,
    ) -> None:
        self.jobs = jobs
        self.ledger = ledger
        self.mirror = mirror
        self.view = view
        self.waits = waits
        """Whether a run whose process has ended may continue: its search decides later, and calls `over` if not."""
        self.ended = ended
        """Is told of each run that this driver does not train any more: another may."""
        self.avoided = avoided
        """A line for each machine that takes no runs any more, the first time that it is asked."""
        self._since: dict[str, float] = {}
        """Runs that have no place yet -> since when."""
        self._looked = -math.inf
        self.begun: set[str] = set()
        """Runs that have begun and not ended: a process or group that continues them is no further `started` event."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles this for its own restore, which is not used."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process is about to train, or to ask for the places of its workers."""
        raise_if_interrupted()
        training = _training(trial)
        for settings in trial.config["jobs"]:
            job = self._job(settings)
            if settings not in training:
                if job.run_id in self.begun:  # until the memory has room for it again
                    self.view.waits(job)
            elif settings["workers"] > 1:
                run_folder.wait_for_workers(job.place.out_dir)
                self._waits(job)
            else:
                self._begins(job)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Once a second: which machines take no runs; which runs have no place on one, and which have got one."""
        raise_if_interrupted()
        if time.monotonic() - self._looked < LOOK_S:
            return
        self._looked = time.monotonic()
        for line in self.avoided():
            self.view.tell(line)
        for trial in trials:
            if trial.status not in (Trial.PENDING, Trial.RUNNING):
                continue
            several = any(settings["workers"] > 1 for settings in trial.config["jobs"])
            if (
                several
                or trial.status == Trial.PENDING
                or any(j["run_id"] in self._since for j in trial.config["jobs"])
            ):
                for settings in _training(trial):
                    self._look(self._job(settings), trial.status == Trial.PENDING, several)

    def _look(self, job: Job, is_pending: bool, several: bool) -> None:
        """Whether a run, with one or several workers, has its place by now."""
        if is_pending or (several and run_folder.is_waiting(job.place.out_dir)):
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
        run_folder.waits_no_more(job.place.out_dir)
        run = self.ledger.run(job.run_id)
        # a run that has paused may have been another driver's in between
        if job.run_id not in self.begun or (run is not None and run.status != "running"):
            self.ledger.append(job.event("started", config=job.run.config.model_dump(mode="json")))
        self.begun.add(job.run_id)
        self.view.started(job)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """An epoch of one run is done, or the run has ended while others of its cohort go on."""
        raise_if_interrupted()
        job = self.jobs[result["run_id"]]
        if result.get("ended"):
            self._sweep(trial)
            return
        if job.run_id in self._since or job.run_id not in self.begun:
            self._begins(job)
        numbers = {name: value for name, value in result.items() if type(value) in (int, float)}
        ours = {name: value for name, value in numbers.items() if name not in (*AUTO_RESULT_KEYS, WORKERS)}
        copy_retries(self.ledger, job.run_id, job.place.out_dir)
        self.ledger.append_epochs(job.run_id, [*self._unheard(job, ours["epoch"]), ours])
        self.view.epoch(job, numbers)
        self.mirror.job(job)

    def _unheard(self, job: Job, epoch: float) -> list[dict[str, float]]:
        """The epochs before this one that the ledger lacks: a process may have trained on after its driver had died."""
        run = self.ledger.run(job.run_id)
        if run is not None and len(run.epochs) + 1 >= epoch:
            return []
        return [each for each in run_folder.read_epochs(job.place.out_dir) if each["epoch"] < epoch]

    def _sweep(self, trial: Any) -> None:
        """Record the runs of a cohort that have ended."""
        for settings in list(trial.config["jobs"]) if len(trial.config["jobs"]) > 1 else ():
            job = self._job(settings)
            if job.run_id in self.begun and self._has_ended(trial, job, settings):
                self._ended(trial, job)

    def _has_ended(self, trial: Any, job: Job, settings: dict[str, Any]) -> bool:
        """Whether a run that has begun is trained no more by its trial: it has finished, or was asked to end, or has
        failed without a further try."""
        out = job.place.out_dir
        if run_folder.is_asked_to_end(out):
            return True
        run = self.ledger.run(job.run_id)
        if run is not None and len(run.epochs) >= job.epochs and run_folder.read_result(out) is not None:
            return True
        heard = run_folder.read_failure(out)
        if heard is None or heard["cause"] == "device" or (heard["cause"] == "memory" and len(_training(trial)) > 1):
            return False  # these are the process's: it ends, or fewer runs train in it
        return bool(settings["refused"]) or not Attempts(settings).may_retry(Failure(**heard))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The runs of a trial ended by themselves, or were stopped."""
        for settings in list(trial.config["jobs"]):
            job = self._job(settings)
            if job.run_id in self._since or job.run_id not in self.begun:
                self._begins(job)
            self._ended(trial, job)

    def _ended(self, trial: Any, job: Job) -> None:
        """A run's process trains it no more."""
        trial.config["jobs"] = [each for each in trial.config["jobs"] if each["run_id"] != job.run_id]
        if self.waits(job.run_id):
            self.view.waits(job)
            self.ended(job.run_id)
        else:
            self._end(job, "")

    def over(self, job: Job) -> None:
        """A run that has waited is stopped for good."""
        self._end(job, "")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process raised an error or died, and no retry is left."""
        failure = of_trial(trial)
        for settings in trial.config["jobs"]:
            self._end(self._job(settings), failure.reason, failure.cause)
        self._pause(failure)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process died, and Tune starts another with the runs that had not ended. Whether one may train again
        depends on its retry budget of the cause."""
        failure = of_trial(trial)
        if failure.cause == "machine":  # it costs no run an attempt
            trial.max_failures += 1
            return
        self._sweep(trial)
        training = _training(trial)
        for settings in training:
            fetch_failure(settings)
            heard = run_folder.read_failure(self._job(settings).place.out_dir)
            if heard is not None and heard["cause"] in ("device", "preempted"):  # why the process ended itself
                failure = Failure(**heard)
        self._pause(failure)
        if failure.cause == "memory" and len(training) > 1:
            remember_shortage(training[0], len(training))  # it costs no run an attempt
            return
        if failure.cause == "preempted":
            trial.max_failures += 1
        if failure.cause == "lost":  # a run that kills its process shall not take others with it again and again
            trial.config["most"] = max(1, -(-len(training) // 2))
        for settings in training:
            self._try_again(settings, failure)
        if all(settings["refused"] for settings in trial.config["jobs"]):
            trial.max_failures = 0  # started once more to write the failures into the folders

    def _try_again(self, settings: dict[str, Any], failure: Failure) -> None:
        """Spend a run's budget of the cause, or mark it in its settings as failed."""
        attempts = Attempts(settings)
        if attempts.record_retry(failure):
            copy_retries(self.ledger, attempts.run_id, attempts.out)
        else:
            settings["refused"] = attempts.explained(failure)._asdict()

    def _pause(self, failure: Failure) -> None:
        if failure.cause == "disk":
            raise full(self.ledger.path.parent, failure)

    def _job(self, settings: Mapping[str, Any]) -> Job:
        return self.jobs[settings["run_id"]]

    def _end(self, job: Job, error: str, cause: str = "lost") -> None:
        self._since.pop(job.run_id, None)
        self.begun.discard(job.run_id)
        end = end_of(self.ledger, Store(self.ledger.path.parent), job.run_id, error, cause)
        copy_from_folder(self.ledger, job.run_id, job.place.out_dir)
        self.ledger.append(job.event(end.status, **end.facts))
        self.ended(job.run_id)
        self.mirror.job(job)
        run = self.ledger.run(job.run_id)
        self.view.ended(job, end.status, "; ".join([end.note, *(run.notes if run else ())]))


def _training(trial: Any) -> list[dict[str, Any]]:
    """The settings of a trial's runs that train now: those of a dead process, or of the next one."""
    jobs = [job for job in trial.config["jobs"] if not job["refused"]]
    if len(jobs) < 2:
        return jobs or list(trial.config["jobs"])
    return [each.job for each in side_by_side([Attempts(job) for job in jobs], trial.config["most"])]
