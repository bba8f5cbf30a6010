"""The listing of a plan: all runs, printed without importing torch; the costs follow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from ablations.statistics.design import design_lines
from ablations.statistics.seed_looks import if_needed
from ablations.statistics.winners import budgets
from ablations.study.arms import cost_label, label, short
from ablations.study.plan import space
from ablations.study.schema import Study
from cluster.spec import ClusterSpec
from orchestrator.state.study_state import StudyRun, StudyState
from orchestrator.terminal.table import UNDERLINE
from trainer.config import OptimConfig, counted, parse
from trainer.files.run_folder import LAST

LONG = 200
"""Up to so many runs are all listed; of more, the first and the last `ENDS`."""
ENDS = 20
NOT_TRAINED = ("reused", "failed")
"""States of runs that `transkd run` does not train."""


def show_plan(state: StudyState, console: Console, *, whole: bool = False) -> None:
    """Print the runs: variant, seed, what it changes, and whether a finished run is reused. `whole` lists all."""
    study, runs = state.study, state.runs
    unchecked = {run.plan.key for run in state.unchecked}
    states = ["unchecked" if run.plan.key in unchecked else _state(state, run) for run in runs]
    pairs = list(zip(runs, states, strict=True))
    reused = states.count("reused")
    epochs = epochs_to_train(state, [run for run, word in pairs if word not in NOT_TRAINED])
    trials = study.search.trials if study.search is not None else sum(budgets(study).values())
    count = counted(len(runs), "run") + (f" and {counted(trials, 'trial')}" if trials else "")
    console.print(Text(study.name, style="bold"), f"  {count}, {reused} reused, {epochs} to train")
    cut = not whole and len(runs) > LONG
    shown = [*pairs[:ENDS], *pairs[-ENDS:]] if cut else pairs
    grid = Grid(box=UNDERLINE, show_edge=False, pad_edge=False, header_style="dim")
    for heading, right in (
        ("variant", False),
        ("seed", True),
        ("changes", False),
        ("run or config", False),
        ("", False),
    ):
        grid.add_column(heading, justify="right" if right else "left", overflow="fold")
    for number, (run, word) in enumerate(shown):
        if cut and number == ENDS:
            grid.add_row("...")
        # the run id is known once the data has been read; before, the config's key is shown
        plan, name = run.plan, run.run_id or run.plan.key
        cells = (plan.arm, str(plan.seed), changes(plan.changed), name, word)
        grid.add_row(*map(Text, cells), style="dim" if word == "reused" else "")
    console.print(grid)
    if cut:
        console.print(Text(f"... {len(runs) - 2 * ENDS:,} more; --all lists them", style="dim"))
    for run in runs:
        if run.lost:
            text = f"again: {run.label} has finished, but its {LAST} is gone from the store, and runs to train need it"
            console.print(Text(text, style="yellow"), soft_wrap=True)
    if study.search is not None:
        show_space(study, console)
    for line in design_lines(study):
        console.print(Text(line, style="dim"))
    if study.tune_each is not None:
        show_tuning(study, console)
    if study.limits.given:
        bounds = ", ".join(f"{name} at most {bound:g}" for name, bound in study.limits.given.items())
        console.print(Text(f"limits of the deployed student: {bounds}", style="dim"))
    if study.compared.left_out:
        console.print(Text(f"{study.compared.left_out} combinations left out by requires and excludes", style="dim"))


def epochs_to_train(state: StudyState, new: Sequence[StudyRun]) -> str:
    """The epochs of the new runs and of the trials that have not ended: `up to 164 epochs`, where trials may be
    stopped or have a number of epochs of their own, or seeds may not be needed."""
    at_most = any(if_needed(state.study, run.plan) for run in new)
    epochs = sum(run.epochs_left for run in new)
    for search in state.searches:
        left = search.search.trials - sum(trial.state != "running" for trial in search.trials)
        searched = space(search.study).get("optim.epochs")
        most = parse(search.study.base).optim.epochs
        if searched is not None:
            most = max(searched.choices.values(), default=0) if searched.kind == "choice" else int(searched.high)
        at_most |= left > 0 and (search.search.stop != "none" or searched is not None)
        epochs += max(0, left) * most
    return f"{'up to ' if at_most else ''}{counted(epochs, 'epoch')}"


def show_space(study: Study, console: Console) -> None:
    """Print a search's dimensions and where it may stop a trial."""
    assert study.search is not None
    search = study.search
    console.print(f"search: {counted(search.trials, 'trial')}, {search.sampler}, by {search.metric}")
    for path, dimension in space(study).items():
        choices = ", ".join(dimension.choices)
        text = choices if dimension.kind == "choice" else f"{dimension.low:g} .. {dimension.high:g}"
        console.print(Text(f"  {path:32} {dimension.kind:8} {text}"))
    for line in search.describe_stops(parse(study.base).optim.epochs):
        console.print(f"  {line}", highlight=False)


def show_tuning(study: Study, console: Console) -> None:
    """Print the budget of each variant's search, by which its weights are found before its seeds run."""
    assert study.tune_each is not None
    each = study.tune_each
    listed = ", ".join(f"{arm} {trials}" for arm, trials in budgets(study).items())
    console.print(Text(f"tuned first: {each.sampler}, by {each.metric}, seed {each.train_seed}; trials: {listed}"))
    for line in each.describe_stops(parse(study.base).optim.epochs):
        console.print(f"  {line}", highlight=False)


def show_costs(costs: Mapping[str, Mapping[str, float]], size: tuple[int, int], console: Console) -> None:
    """Print the deployed student's cost by arm; arms that deploy the same one share a line."""
    grid = Grid(box=UNDERLINE, show_edge=False, pad_edge=False, header_style="dim")
    for heading in ("variant", "params (M)", "GMACs (paper)", "GMACs (all)"):
        grid.add_column(heading, justify="left" if heading == "variant" else "right", overflow="fold")
    same: dict[tuple[str, ...], list[str]] = {}
    for arm, cost in costs.items():
        cells = tuple(cost_label(cost[name]) for name in ("params_m", "gmacs_paper", "gmacs"))
        same.setdefault(cells, []).append(arm)
    for cells, arms in same.items():
        grid.add_row(Text(arms[0] if len(arms) == 1 else f"{arms[0]}, and {len(arms) - 1} more"), *cells)
    console.print()
    console.print(grid)
    console.print(Text(f"of the deployed student, one {size[0]}x{size[1]} image", style="dim"))


def show_batches(optims: Iterable[OptimConfig], spec: ClusterSpec, console: Console) -> None:
    """Print how a step is split over the workers of a run, and which micro-batches it allows. Of a range of workers
    those numbers are named that a step can be dealt among."""
    for optim in {(optim.global_batch, optim.effective_norm_batch): optim for optim in optims}.values():
        numbers: Iterable[int] = [spec.least_workers]
        if spec.least_workers < spec.most_workers:
            numbers = optim.group_sizes(spec.least_workers, spec.most_workers, spec.micro_batch)
        for workers in numbers:
            console.print(Text(_batch_line(optim, workers), style="dim"), soft_wrap=True)


def _batch_line(optim: OptimConfig, workers: int) -> str:
    used = optim.workers(workers)
    share, *smaller = optim.micro_batches(workers)
    of = f"{counted(optim.global_batch, 'sample')} a step" + (
        f", {share} on each of {used} workers" if workers > 1 else ""
    )
    idle = f" (of {workers}; the others have none)" if used < workers else ""
    group = optim.effective_norm_batch
    if smaller:
        rest = f"micro_batch may be {', '.join(map(str, (share, *smaller)))}"
    else:
        rest = f"micro_batch cannot be below {share}, as a BatchNorm group has {group} (optim.norm_batch)"
    return f"{of}{idle}; {rest if share > 1 else 'one forward pass'}"


def changes(changed: Mapping[str, Any]) -> str:
    """What an arm changes, in one cell."""
    texts = [
        "no paths" if path == "distill" and not value else f"{short(path)}={label(value)}"
        for path, value in changed.items()
    ]
    return ", ".join(texts) or "-"


def _state(state: StudyState, run: StudyRun) -> str:
    """`reused`; `again`: a teacher whose checkpoint is gone; `failed`: a final failure; `if needed`: a seed of a later
    look; `new`."""
    if run.finished:
        return "reused"
    if run.lost:
        return "again"
    if state.is_final_failure(run):
        return "failed"
    return "if needed" if if_needed(state.study, run.plan) else "new"
