"""Live: the view of a study on a terminal: a line for the study, one for each running run, ended runs above."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live as Screen
from rich.progress_bar import ProgressBar
from rich.table import Table as Grid
from rich.text import Text

from orchestrator.prepare.jobs import Job
from orchestrator.state.progress import RunProgress, best_in_words, epochs_of, stopped_in_words
from orchestrator.terminal.log_lines import RESOURCES, Lines, StudyProgress

MARKS = {"finished": ("✓", "green"), "failed": ("✗", "red"), "stopped": ("■", "yellow")}
SHOWN = 12
"""At most so many runs have a line of their own."""
BESIDE = 52
"""Columns beside the longest label."""
BAR = 20
"""Columns of the study's bar; a run's bar is half as long."""


class Live:
    """Shows a study's progress, redrawn at each change."""

    def __init__(self, console: Console, progress: StudyProgress) -> None:
        self.console = console
        self.progress = progress
        self.losses: dict[str, float] = {}
        self.screen = Screen(console=console, transient=True, auto_refresh=False, get_renderable=self.render)

    def __enter__(self) -> Live:
        self.screen.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.screen.stop()

    def started(self, job: Job) -> None:
        """Show a line for the run."""
        self.progress.change(job, "running")
        self.screen.refresh()

    def epoch(self, job: Job, metrics: Mapping[str, float]) -> None:
        """Update the run's line."""
        self.progress.change(job, "running")
        if "loss" in metrics:
            self.losses[job.label] = metrics["loss"]
        self.screen.refresh()

    def waits(self, job: Job) -> None:
        """Remove the run's line; it may come back."""
        self.progress.change(job, "waiting")
        self.screen.refresh()

    def queued(self, job: Job, why: str = RESOURCES) -> None:
        """Show why the run waits, instead of its line."""
        self.progress.queue(job, why)
        self.screen.refresh()

    def held(self, why: str) -> None:
        """Show that the study waits for its share of the cluster."""
        self.progress.held = why
        self.screen.refresh()

    def tell(self, text: str) -> None:
        """Print it above the runs."""
        self.console.print(text, highlight=False, markup=False)

    def ended(self, job: Job, status: str, note: str) -> None:
        """Replace the run's line by a permanent one that says how it ended."""
        run = self.progress.change(job, status)
        mark, style = MARKS[status]
        line = Grid.grid(padding=(0, 1))
        line.add_row(
            Text(mark, style=style),
            Text(shortened(job.label, self.console.width - BESIDE), no_wrap=True),
            Text(run.note or note, style="dim"),
        )
        self.screen.refresh()
        self.console.print(line)

    def render(self) -> RenderableType:
        """The current progress."""
        progress, runs = self.progress, self.progress.runs.values()
        done, total = epochs_of(runs)
        whole = Grid.grid(padding=(0, 2))
        counts = f"{progress.ended}/{len(runs)} runs  {done}/{total} epochs"
        whole.add_row(_bar(done, total, BAR), Text(counts), Text(progress.left))
        failed = progress.count("failed")
        also = (best_in_words(runs), stopped_in_words(runs), f"{failed} failed" if failed else "")
        told = Text("  ".join(filter(None, also)), style="dim", no_wrap=True, overflow="ellipsis")
        running = progress.running
        if waited := progress.waited_for:
            told = Text("  ".join(filter(None, (waited, *also))), style="dim", no_wrap=True, overflow="ellipsis")
        shown = Grid.grid(padding=(0, 2, 0, 0))
        for run in running[:SHOWN]:
            shown.add_row(*self._run(run))
        more = [Text(f"  and {len(running) - SHOWN} more", style="dim")] if len(running) > SHOWN else []
        if progress.queued:
            label, why = next(iter(progress.queued.items()))
            first = shortened(label, self.console.width - BESIDE)
            others = f" and {len(progress.queued) - 1} more" if len(progress.queued) > 1 else ""
            more.append(Text(f"  {first}{others}: {why}", style="dim", no_wrap=True, overflow="ellipsis"))
        return Group(Text(), *([shown] if running else []), *more, *_notes(running), whole, *([told] if told else []))

    def _run(self, run: RunProgress) -> list[RenderableType]:
        score = f"{run.score:.1f}" if run.score is not None else ""
        loss = self.losses.get(run.label)
        return [
            Text(f"  {shortened(run.label, self.console.width - BESIDE)}", no_wrap=True),
            _bar(run.epoch, run.epochs, BAR // 2),
            Text(f"{run.epoch}/{run.epochs}", justify="right", no_wrap=True),
            Text(score and f"{run.metric} {score}", no_wrap=True),
            Text(f"loss {loss:.3f}" if loss is not None else "", style="dim", no_wrap=True),
        ]


def shortened(label: str, width: int) -> str:
    """The label, cut in the middle to fit: the seed at its end distinguishes runs."""
    return label if len(label) <= width else f"{label[: width - 10]}…{label[-9:]}"


def _bar(done: int, total: int, width: int) -> ProgressBar:
    return ProgressBar(total=max(1, total), completed=done, width=width, complete_style="cyan", finished_style="cyan")


def _notes(running: list[RunProgress]) -> list[Text]:
    return [Text(f"  {run.label}: {run.note}", style="yellow") for run in running if run.note]


def view(console: Console, progress: StudyProgress) -> Lines | Live:
    """A live view on a terminal, lines elsewhere."""
    return (Live if console.is_terminal else Lines)(console, progress)
