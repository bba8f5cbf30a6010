"""Progress: what the driver tells whoever watches, and the plain view of it: one line a change, or a minute."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import Protocol

from rich.console import Console

from orchestrator.prepare.jobs import Job
from orchestrator.state.progress import Part, best_in_words, epochs_of, in_words, left_s, metrics_of, part_of, standing
from orchestrator.state.study_state import StudyState

QUIET_S = 60.0
"""Where nothing changes, a study that goes on is mentioned so often."""
NAMED = 4
"""Runs that such a line names."""


class View(Protocol):
    """What the driver tells whoever watches; the ledger has been told before."""

    def started(self, job: Job) -> None:
        """A run begins, or begins again."""

    def epoch(self, job: Job, metrics: Mapping[str, float]) -> None:
        """A run has done an epoch."""

    def waits(self, job: Job) -> None:
        """A run trains no more for now: whether it goes on is decided with others'."""

    def ended(self, job: Job, status: str, note: str) -> None:
        """A run is finished, failed or stopped."""


class Board:
    """All runs of a study, as they stood when a phase of it began, and as the driver's own have changed since."""

    def __init__(self, state: StudyState) -> None:
        parts = standing(state, driver="this one").parts
        # nothing trains yet, whatever the ledger says of runs that a search holds back
        self.parts = {p.label: replace(p, state="waiting") if p.state == "running" else p for p in parts}
        self.metrics = metrics_of(state)
        self.ledger = state.ledger
        self.abreast = 1
        self._running = dict.fromkeys(label for label, part in self.parts.items() if part.state == "running")
        self._counts = Counter(part.state for part in self.parts.values())
        self._left, self._left_until = "", 0.0

    def change(self, job: Job, state: str) -> Part:
        """A job's run as the ledger has it now."""
        run = self.ledger.run(job.run_id)  # None of a proposal that cannot be run
        part = part_of(job.label, job.run.role, job.epochs, self.metrics[job.run.role], state, run)
        before = self.parts.get(job.label)
        self._counts.subtract([before.state] if before else [])
        self._counts[part.state] += 1
        self.parts[job.label] = part
        if part.state == "running":
            self._running.setdefault(job.label)
        else:
            self._running.pop(job.label, None)
        self.abreast = max(self.abreast, len(self._running))
        return part

    @property
    def running(self) -> list[Part]:
        """The runs that train, in the order in which they began."""
        return [self.parts[label] for label in self._running]

    def count(self, *states: str) -> int:
        """Runs in these states."""
        return sum(self._counts[state] for state in states)

    @property
    def ended(self) -> int:
        return self.count("finished", "stopped", "failed")

    @property
    def left(self) -> str:
        """`about 4 min left`."""
        begun = time.monotonic()
        if begun >= self._left_until:
            self._left = in_words(left_s(self.parts.values(), self.abreast))
            # it looks at every run: of 10,000 not at each change, but for a twentieth of the time
            self._left_until = time.monotonic() + 20 * (time.monotonic() - begun)
        return self._left


class Lines:
    """One line a change, for files and job logs."""

    def __init__(self, console: Console, board: Board) -> None:
        self.console = console
        self.board = board
        self._spoke = time.monotonic()
        self._attempts: dict[str, str] = {}

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def started(self, job: Job) -> None:
        """Say that a run begins, or goes on."""
        part = self.board.change(job, "running")
        self._attempts[job.label] = part.note
        begins = f"goes on after epoch {part.epoch}" if part.epoch else "started"
        self._say(f"        {job.label}: {', '.join(filter(None, (begins, part.note)))}")

    def epoch(self, job: Job, metrics: Mapping[str, float]) -> None:
        """Say that a run had to begin again, and once a minute where the study stands."""
        note = self.board.change(job, "running").note
        if note != self._attempts.get(job.label, ""):
            self._attempts[job.label] = note
            self._say(f"        {job.label}: {note}")
        elif time.monotonic() - self._spoke > QUIET_S:
            self._say(f"        {self._standing()}")

    def waits(self, job: Job) -> None:
        """Say nothing: it has not ended."""
        self.board.change(job, "waiting")

    def ended(self, job: Job, status: str, note: str) -> None:
        """Say how a run ended, and what is left."""
        part = self.board.change(job, status)
        parts = (f"{job.label}: {status}", part.note or note, self.board.left)
        self._say(f"{self.board.ended:3}/{len(self.board.parts):<3} {'  '.join(filter(None, parts))}")

    def _standing(self) -> str:
        done, total = epochs_of(self.board.parts.values())
        running = self.board.running
        named = ", ".join(f"{part.label} {part.epoch}/{part.epochs}" for part in running[:NAMED])
        more = f" and {len(running) - NAMED} more" if len(running) > NAMED else ""
        parts = (f"{done}/{total} epochs", named + more, best_in_words(self.board.parts.values()), self.board.left)
        return "  ".join(filter(None, parts))

    def _say(self, text: str) -> None:
        self._spoke = time.monotonic()
        self.console.print(f"{time.strftime('%H:%M:%S')} {text}", highlight=False, markup=False, soft_wrap=True)
