"""Mirror: sends a study's runs to MLflow in the background, from the ledger and the runs' folders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from orchestrator.prepare.jobs import Job
from orchestrator.state.study_state import StudyState
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger
from orchestrator.store.ledger_run import LedgerRun
from orchestrator.tracking.address import shown
from orchestrator.tracking.also import TRACKERS, RunTracker
from orchestrator.tracking.arm_record import ArmRecord
from orchestrator.tracking.mlflow_server import Server
from orchestrator.tracking.run_record import Record
from orchestrator.tracking.sender import Sender
from orchestrator.tracking.tracker import Tracker

FLUSH_S = 120.0
"""Longest wait for tracking at the end of a study, in seconds; `transkd sync` sends the rest."""


EPOCHS_S = 10.0
"""So long the epochs of a run that trains may wait, so that one request sends several."""


class Mirror:
    """Keeps tracking up to date with one study. No method raises, and only `close` waits."""

    def __init__(self, study: str, store: Store, also: Sequence[str] = ()) -> None:
        self.study = study
        self.store = store
        self.ledger = Ledger(store.ledger)
        self.tracker = Tracker(Server(store.mlflow_uri, store.artifacts), store.identity)
        self.sender = Sender(self.tracker.why_unreachable, shown(store.mlflow_uri))
        self.sender.send("reconcile", self._reconcile)
        self.sender.send("study", lambda: self.tracker.open(study))
        self._others: list[tuple[RunTracker, Sender]] = []
        """Trackers beside MLflow, each with a thread of its own: a slow one delays no other."""
        for name in also:
            folder = store.root / name
            self._others.append((TRACKERS[name](folder), Sender(lambda: "", f"{name} ({folder})")))

    def job(self, job: Job) -> None:
        """Bring a job's run up to date with the ledger."""
        self.send(job.run_id, job.run.arm, job.run.seed, job.run.role)

    def send(self, run_id: str, arm: str, seed: int | None, role: str) -> None:
        """Queue a run; when its turn comes, MLflow is brought up to date with the ledger."""

        def send_to(update: Callable[[Record], None]) -> None:
            if (run := self.ledger.run(run_id)) is not None:
                update(Record(self.study, arm, seed, role, run, self.store.run_dir(run_id)))

        run = self.ledger.run(run_id)
        wait_s = EPOCHS_S if run is not None and run.status == "running" else 0.0
        self.sender.send(run_id, partial(send_to, self.tracker.mirror), wait_s)
        for other, sender in self._others:
            sender.send(run_id, partial(send_to, other.send), wait_s)

    def ended(self, state: StudyState) -> list[LedgerRun]:
        """Send all ended runs of a study, also those that ended without this driver; returns them."""
        found = []
        for run in state.members:
            place = next((member for member in run.members if member.study == self.study), None)
            if place is not None and run.status not in ("running", "missing"):
                self.send(run.run_id, place.arm, place.seed, place.role)
                found.append(run)
        return found

    def close(
        self,
        files: Iterable[Path],
        timeout_s: float | None = FLUSH_S,
        *,
        arms: Sequence[ArmRecord] = (),
        finished: bool,
    ) -> set[str]:
        """Send the report files to the parent run and the numbers of arms, end it, and wait for the queue; the names of
        what was not sent."""
        if arms:
            self.sender.send("arms", lambda: self.tracker.arms(self.study, arms))
        self.sender.send("report", lambda: self.tracker.files(self.study, files))
        if finished:
            self.sender.send("close", lambda: self.tracker.close(self.study))
        # nothing trains any more: runs that are still RUNNING were interrupted, the parent too
        self.sender.send("interrupted", self._reconcile)
        left = self.sender.close(timeout_s)
        return left.union(*(sender.close(timeout_s) for _, sender in self._others))

    def _reconcile(self) -> None:
        self.tracker.reconcile(lambda: self.store.leases.drivers().keys() - {self.study})


def sync(
    state: StudyState,
    store: Store,
    files: Iterable[Path],
    arms: Sequence[ArmRecord] = (),
    also: Sequence[str] = (),
) -> tuple[int, set[str]]:
    """Send what tracking lacks of a study. Returns how many runs are up to date, and the names of what was not sent."""
    mirror = Mirror(state.study.name, store, also)
    ended = mirror.ended(state)
    finished = all(run.status in ("finished", "failed", "stopped") for run in state.members)
    left = mirror.close(files, timeout_s=None, arms=arms, finished=finished)
    return sum(run.run_id not in left for run in ended), left
