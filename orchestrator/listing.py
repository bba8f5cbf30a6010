"""The listing of a plan: every run at once and without torch; the costs fill in after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from ablations.arms import label, short
from ablations.plan import Run, space
from ablations.stats import describe_design
from ablations.study import Study
from orchestrator.ledger import LedgerRun
from orchestrator.report import UNDERLINE


def show_plan(study: Study, runs: Sequence[Run], known: Mapping[str, LedgerRun], console: Console) -> None:
    """Print every run: variant, seed, what it changes, and whether a finished run is reused."""
    reused = sum(_state(run, known) == "reused" for run in runs)
    epochs = sum(run.config.optim.epochs for run in runs if _state(run, known) != "reused")
    trials = f" and {study.search.trials} trials" if study.search is not None else ""
    count = f"{len(runs)} run{'' if len(runs) == 1 else 's'}{trials}"
    console.print(Text(study.name, style="bold"), f"  {count}, {reused} reused, {epochs} epochs to train")
    grid = Grid(box=UNDERLINE, show_edge=False, pad_edge=False, header_style="dim")
    for heading, right in (("variant", False), ("seed", True), ("changes", False), ("run", False), ("", False)):
        grid.add_column(heading, justify="right" if right else "left", overflow="fold")
    for run in runs:
        state = _state(run, known)
        style = "dim" if state == "reused" else ""
        cells = (run.arm, str(run.seed), changes(run.changed), run.key, state)
        grid.add_row(*map(Text, cells), style=style)
    console.print(grid)
    if study.search is not None:
        show_space(study, console)
    elif study.pairs:
        console.print(Text(describe_design(len(study.seeds), len(study.pairs)), style="dim"))
    if study.compared.left_out:
        console.print(Text(f"{study.compared.left_out} combinations left out by requires and excludes", style="dim"))


def show_space(study: Study, console: Console) -> None:
    """Print a search's dimensions and rungs."""
    assert study.search is not None
    search = study.search
    console.print(f"search: {search.trials} trials, {search.sampler}, by {search.metric}")
    for path, dimension in space(study).items():
        choices = ", ".join(dimension.choices)
        text = choices if dimension.kind == "choice" else f"{dimension.low:g} .. {dimension.high:g}"
        console.print(Text(f"  {path:32} {dimension.kind:8} {text}"))
    epochs = int(study.base.get("optim", {}).get("epochs", 100))
    rungs = search.rungs(epochs)
    if rungs:
        share = ", ".join(f"{rung} ({rung / epochs:.0%})" for rung in rungs)
        console.print(f"  stops at epochs {share} of {epochs}; one in {search.eta} goes on", highlight=False)


def show_costs(costs: Mapping[str, Mapping[str, float]], size: tuple[int, int], console: Console) -> None:
    """Print the deployed student's cost by arm; arms that deploy the same one share a line."""
    grid = Grid(box=UNDERLINE, show_edge=False, pad_edge=False, header_style="dim")
    for heading in ("variant", "M par.", "GMACs (paper)", "GMACs (runs)"):
        grid.add_column(heading, justify="left" if heading == "variant" else "right", overflow="fold")
    same: dict[tuple[str, ...], list[str]] = {}
    for arm, cost in costs.items():
        cells = tuple(f"{cost[name]:.2f}" for name in ("params_m", "gmacs_paper", "gmacs"))
        same.setdefault(cells, []).append(arm)
    for cells, arms in same.items():
        grid.add_row(Text(arms[0] if len(arms) == 1 else f"{arms[0]}, and {len(arms) - 1} more"), *cells)
    console.print()
    console.print(grid)
    console.print(Text(f"of the deployed student, one 3x{size[0]}x{size[1]} image", style="dim"))


def changes(changed: Mapping[str, Any]) -> str:
    """What an arm changes, in one cell."""
    texts = [
        "no paths" if path == "distill" and not value else f"{short(path)}={label(value)}"
        for path, value in changed.items()
    ]
    return ", ".join(texts) or "-"


def _state(run: Run, known: Mapping[str, LedgerRun]) -> str:
    return "reused" if run.key in known and known[run.key].status == "finished" else "new"
