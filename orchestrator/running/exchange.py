"""Exchange: an actor through which a trial's process gives runs to its workers and hears their reports.

Ray Train's own reports reach the trial only when its controller polls the workers, every two seconds, one at a time.
"""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple


class Given(NamedTuple):
    """A run that the workers are to train: its number in this group, from 1, and the settings of its trial."""

    number: int
    job: dict[str, Any]


class Exchange:
    """The runs of one group of workers, one at a time. Every call is answered when its answer is there."""

    def __init__(self, workers: int, idle_s: float) -> None:
        self._workers = workers
        self._idle_s = idle_s
        self._change = asyncio.Condition()
        self._given = Given(0, {})
        self._done: dict[int, int] = {}
        """Rank -> how many runs it has done."""
        self._reports: list[dict[str, Any]] = []
        """Worker 0's reports of this run."""
        self._taken = 0
        """How many of them the trial has taken."""
        self._answered = 0
        """After how many the workers may go on."""
        self._calls: dict[int, int] = {}
        """Rank -> how many reports of this run it has made."""
        self._stopped = False
        self._ended = False

    async def give(self, job: dict[str, Any]) -> bool:
        """The trial: train this run, once all workers have left the one before it. False where the group has ended."""
        async with self._change:
            await self._change.wait_for(lambda: self._ended or self._given.number == 0 or self._is_idle())
            if not self._ended:
                self._given = Given(self._given.number + 1, job)
                self._reports, self._calls = [], {}
                self._taken = self._answered = 0
                self._stopped = False
                self._change.notify_all()
            return not self._ended

    async def heard(self) -> dict[str, Any] | None:
        """The trial: let the workers go on after their last report; returns the next one, or None after the run."""
        async with self._change:
            self._answered = self._taken
            self._change.notify_all()
            await self._change.wait_for(lambda: len(self._reports) > self._taken or self._is_idle())
            if len(self._reports) == self._taken:
                return None
            self._taken += 1
            return self._reports[self._taken - 1]

    async def stop(self) -> None:
        """The trial: the workers are not to go on after their last report."""
        async with self._change:
            self._stopped = True
            self._change.notify_all()

    async def end(self) -> None:
        """The trial: no further run will come."""
        async with self._change:
            self._ended = True
            self._change.notify_all()

    async def next(self, rank: int, done: int) -> Given | None:
        """A worker that has done so many runs: the next one; None where none will come.

        A group that has waited for `idle_s` seconds ends: others may need its places, and an autoscaler its machines.
        """
        async with self._change:
            self._done[rank] = done
            self._change.notify_all()
            while not self._ended and self._given.number == done:
                try:
                    await asyncio.wait_for(self._change.wait(), self._idle_s)
                except TimeoutError:
                    self._ended = self._is_idle()
                    self._change.notify_all()
            return None if self._given.number == done else self._given

    async def report(self, rank: int, metrics: dict[str, Any]) -> bool:
        """A worker, after each epoch of a run: whether to go on. All workers of a run stop after the same epoch."""
        async with self._change:
            call = self._calls[rank] = self._calls.get(rank, 0) + 1
            if rank == 0:
                self._reports.append(metrics)
            self._change.notify_all()
            await self._change.wait_for(lambda: self._answered >= call or self._stopped)
            return self._answered >= call

    def _is_idle(self) -> bool:
        """Whether all workers have done all runs."""
        return len(self._done) == self._workers and set(self._done.values()) == {self._given.number}
