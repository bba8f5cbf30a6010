"""Progress: a calm live view on a terminal, one line a change anywhere else."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from orchestrator.jobs import Job

QUIET_S = 60.0
"""Without a terminal, a run that goes on is mentioned so often."""


class View(Protocol):
    """What the driver tells whoever watches."""

    def started(self, job: Job) -> None:
        """A run begins, or begins again."""

    def epoch(self, job: Job, metrics: Mapping[str, float]) -> None:
        """A run has done an epoch."""

    def ended(self, job: Job, status: str, note: str) -> None:
        """A run is finished, failed or stopped."""


class Clock:
    """How long the rest takes, from the epochs this process has seen."""

    def __init__(self, epochs_left: int) -> None:
        self.left = epochs_left
        self.done = 0
        self.start = time.monotonic()
        self._seen: dict[str, int] = {}

    def epoch(self, job: Job, epoch: int) -> None:
        """Count an epoch of a run. The first one starts the clock: what comes before it, imports, happens once."""
        if not self.done:
            self.start = time.monotonic()
        self.done += max(0, epoch - self._seen.get(job.run_id, epoch - 1))
        self._seen[job.run_id] = epoch

    def forget(self, job: Job) -> None:
        """A run ended: the epochs it did not need are not waited for."""
        self.left -= max(0, job.epochs - self._seen.get(job.run_id, 0))

    def remaining(self) -> str:
        """`about 4 min left`, once there is something to go by."""
        if self.done < 2:
            return ""
        seconds = (self.left - self.done) * (time.monotonic() - self.start) / (self.done - 1)
        return f"about {seconds / 60:.0f} min left" if seconds >= 90 else f"about {max(0, seconds):.0f} s left"


class Lines:
    """One line a change, for files and job logs."""

    def __init__(self, console: Console, total: int, epochs_left: int) -> None:
        self.console = console
        self.total = total
        self.count = 0
        self.clock = Clock(epochs_left)
        self._told: dict[str, float] = {}

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def started(self, job: Job) -> None:
        """Say that a run begins."""
        self._told[job.run_id] = time.monotonic()
        self._say(f"        {job.label}: started")

    def epoch(self, job: Job, metrics: Mapping[str, float]) -> None:
        """Say where a long run stands, once a minute."""
        self.clock.epoch(job, int(metrics["epoch"]))
        if time.monotonic() - self._told.get(job.run_id, 0.0) > QUIET_S:
            self._told[job.run_id] = time.monotonic()
            self._say(f"        {job.label}: {_where(job, metrics)}  {self.clock.remaining()}")

    def ended(self, job: Job, status: str, note: str) -> None:
        """Say how a run ended, and what is left."""
        self.count += 1
        self.clock.forget(job)
        self._say(f"{self.count:3}/{self.total:<3} {job.label}: {status}  {note}  {self.clock.remaining()}")

    def _say(self, text: str) -> None:
        self.console.print(
            f"{time.strftime('%H:%M:%S')} {text.rstrip()}", highlight=False, markup=False, soft_wrap=True
        )


class Live:
    """A bar for the study and one for every run that trains now."""

    def __init__(self, console: Console, total: int, epochs_left: int) -> None:
        self.console = console
        self.clock = Clock(epochs_left)
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24, complete_style="cyan", finished_style="cyan"),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
            console=console,
            transient=True,
            refresh_per_second=4,
        )
        self.all = self.bars.add_task("runs", total=total, note="")
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Live:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def started(self, job: Job) -> None:
        """Show a bar for the run."""
        if job.run_id not in self.tasks:
            self.tasks[job.run_id] = self.bars.add_task(f"  {job.label}", total=job.epochs, note="starting")

    def epoch(self, job: Job, metrics: Mapping[str, float]) -> None:
        """Move the run's bar."""
        self.clock.epoch(job, int(metrics["epoch"]))
        self.started(job)
        self.bars.update(self.tasks[job.run_id], completed=metrics["epoch"], note=_where(job, metrics, bar=True))
        self.bars.update(self.all, note=self.clock.remaining())

    def ended(self, job: Job, status: str, note: str) -> None:
        """Replace the run's bar by a line above."""
        self.clock.forget(job)
        if job.run_id in self.tasks:
            self.bars.remove_task(self.tasks.pop(job.run_id))
        style = {"finished": "green", "failed": "red"}.get(status, "yellow")
        mark = {"finished": "✓", "failed": "✗"}.get(status, "■")
        self.bars.console.print(f"[{style}]{mark}[/] {escape(job.label)}  [dim]{escape(note)}[/]", highlight=False)
        self.bars.advance(self.all)


def view(console: Console, total: int, epochs_left: int) -> Lines | Live:
    """The view that fits the console."""
    return (Live if console.is_terminal else Lines)(console, total, epochs_left)


def _where(job: Job, metrics: Mapping[str, float], bar: bool = False) -> str:
    miou = f"mIoU {metrics['val/miou']:.1f}" if "val/miou" in metrics else ""
    loss = f"loss {metrics['loss']:.3f}" if "loss" in metrics else ""
    epoch = "" if bar else f"epoch {metrics['epoch']:.0f}/{job.epochs}"
    return "  ".join(part for part in (epoch, miou, loss) if part)
