"""The views' interface, the progress that they show, and the plain view: a line for each change, or each minute."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import Protocol

from rich.console import Console

from orchestrator.prepare.jobs import Job
from orchestrator.state.progress import (
    RunProgress,
    best_in_words,
    epochs_of,
    in_words,
    left_s,
    metrics_of,
    run_progress,
    study_status,
)
from orchestrator.state.study_state import StudyState

QUIET_S = 20.0
"""Without changes, the progress is printed after so many seconds."""
NAMED = 4
"""At most so many runs are named in that line."""
RESOURCES = "waiting for resources"


class View(Protocol):
    """What the driver reports to the terminal, after the ledger."""

    def started(self, job: Job) -> None:
        """A run starts or resumes."""

    def epoch(self, job: Job, metrics: Mapping[str, float]) -> None:
        """A run has finished an epoch."""

    def waits(self, job: Job) -> None:
        """A run pauses: its search will decide whether it continues."""

    def queued(self, job: Job, why: str = RESOURCES) -> None:
        """A run waits: for resources, which others use or which are not there yet, or for another driver."""

    def held(self, why: str) -> None:
        """The study's next run waits for its share of the cluster; an empty text: it does not any more."""

    def tell(self, text: str) -> None:
        """Something else that is to be known, in one line."""

    def ended(self, job: Job, status: str, note: str) -> None:
        """A run has finished, failed or been stopped."""


class StudyProgress:
    """The progress of all runs of a study: read at the start of a phase, then updated by the driver's own runs."""

    def __init__(self, state: StudyState) -> None:
        runs = study_status(state, {"": "this one"}).runs
        # nothing trains yet: `running` in the ledger are trials that wait for their batch
        self.runs = {p.label: replace(p, state="waiting") if p.state == "running" else p for p in runs}
        self.metrics = metrics_of(state)
        self.ledger = state.ledger
        self.slots: int | None = None
        """Processes at once, if known: the runs of one share its time, as the seconds of their epochs do."""
        self.at_once = 1
        self.queued: dict[str, str] = {}
        """Label -> why, of the runs that wait, in order."""
        self.held = ""
        """Why the study's next run waits for its share of the cluster; empty where it does not."""
        self._running = dict.fromkeys(label for label, run in self.runs.items() if run.state == "running")
        self._counts = Counter(run.state for run in self.runs.values())
        self._left, self._left_until = "", 0.0

    def change(self, job: Job, state: str) -> RunProgress:
        """Update a job's run from the ledger, and give it this state."""
        entry = self.ledger.run(job.run_id)  # None of a proposal that cannot be run
        before = self.runs.get(job.label)
        like = before.like if before else job.run.arm
        run = run_progress(job.label, job.run.role, job.epochs, self.metrics[job.run.role], state, entry, like)
        self._counts.subtract([before.state] if before else [])
        self._counts[run.state] += 1
        self.runs[job.label] = run
        self.queued.pop(job.label, None)
        if run.state == "running":
            self._running.setdefault(job.label)
        else:
            self._running.pop(job.label, None)
        self.at_once = max(self.at_once, len(self._running))
        return run

    def queue(self, job: Job, why: str) -> None:
        """Show a job's run as waiting."""
        self.change(job, "waiting")
        self.queued[job.label] = why

    @property
    def running(self) -> list[RunProgress]:
        """The running runs, in the order of their start."""
        return [self.runs[label] for label in self._running]

    def count(self, *states: str) -> int:
        """The number of runs in these states."""
        return sum(self._counts[state] for state in states)

    @property
    def waited_for(self) -> str:
        """What is waited for: the study's share of the cluster or, where nothing trains, the start of a run; else
        empty."""
        if self.held:
            return self.held
        left = len(self.runs) - self.ended
        if self._running or not left:
            return ""
        return f"waiting for {'its' if left == 1 else 'the next of'} {left} {'run' if left == 1 else 'runs'} to start"

    @property
    def ended(self) -> int:
        return self.count("finished", "stopped", "failed")

    @property
    def left(self) -> str:
        """`about 4 min left`."""
        begun = time.monotonic()
        if begun >= self._left_until:
            at_once = self.at_once if self.slots is None else min(self.at_once, self.slots)
            self._left = in_words(left_s(self.runs.values(), at_once))
            # this reads every run: it is computed again only after 20 times as long as it took
            self._left_until = time.monotonic() + 20 * (time.monotonic() - begun)
        return self._left


class Lines:
    """One line for each change, for files and job logs."""

    def __init__(self, console: Console, progress: StudyProgress) -> None:
        self.console = console
        self.progress = progress
        self._spoke = time.monotonic()
        self._attempts: dict[str, str] = {}
        self._told = threading.RLock()
        """Held while progress changes or is printed: the heartbeat is a thread of its own."""
        self._closed = threading.Event()

    def __enter__(self) -> Lines:
        threading.Thread(target=self._beat, daemon=True, name="heartbeat").start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()

    def _beat(self) -> None:
        """Print the progress where nothing was printed for `QUIET_S`, so that a long epoch is no silence."""
        while not self._closed.wait(QUIET_S / 4):
            self.keep_telling()

    def keep_telling(self) -> None:
        """Print what trains or what is waited for, unless something was printed in the last `QUIET_S`."""
        with self._told:
            if time.monotonic() - self._spoke > QUIET_S:
                self._say(f"        {self._standing()}")

    def started(self, job: Job) -> None:
        """Print that a run starts or resumes."""
        with self._told:
            run = self.progress.change(job, "running")
            self._attempts[job.label] = run.note
            begins = f"goes on after epoch {run.epoch}" if run.epoch else "started"
            self._say(f"        {job.label}: {', '.join(filter(None, (begins, run.note)))}")

    def epoch(self, job: Job, metrics: Mapping[str, float]) -> None:
        """Print that a run was retried; else the progress of the study, if it is time for it."""
        with self._told:
            note = self.progress.change(job, "running").note
            if note != self._attempts.get(job.label, ""):
                self._attempts[job.label] = note
                self._say(f"        {job.label}: {note}")
            else:
                self.keep_telling()

    def waits(self, job: Job) -> None:
        """Print nothing: the run has not ended."""
        with self._told:
            self.progress.change(job, "waiting")

    def queued(self, job: Job, why: str = RESOURCES) -> None:
        """Print why a run waits."""
        with self._told:
            self.progress.queue(job, why)
            self._say(f"        {job.label}: {why}")

    def held(self, why: str) -> None:
        """Print that the study begins to wait for its share; how that changes is part of the progress."""
        with self._told:
            begins, self.progress.held = why and not self.progress.held, why
            if begins:
                self._say(f"        {why}")

    def tell(self, text: str) -> None:
        """Print it."""
        with self._told:
            self._say(f"        {text}")

    def ended(self, job: Job, status: str, note: str) -> None:
        """Print how a run ended, and the time left."""
        with self._told:
            run = self.progress.change(job, status)
            said = (f"{job.label}: {status}", run.note or note, self.progress.left)
            self._say(f"{self.progress.ended:3}/{len(self.progress.runs):<3} {'  '.join(filter(None, said))}")

    def _standing(self) -> str:
        done, total = epochs_of(self.progress.runs.values())
        running = self.progress.running
        named = ", ".join(f"{run.label} {run.epoch}/{run.epochs}" for run in running[:NAMED])
        more = f" and {len(running) - NAMED} more" if len(running) > NAMED else ""
        best = best_in_words(self.progress.runs.values())
        said = (f"{done}/{total} epochs", named + more, self.progress.waited_for, best, self.progress.left)
        return "  ".join(filter(None, said))

    def _say(self, text: str) -> None:
        self._spoke = time.monotonic()
        self.console.print(f"{time.strftime('%H:%M:%S')} {text}", highlight=False, markup=False, soft_wrap=True)
