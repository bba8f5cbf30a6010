"""plan: list the runs of a study, what they change and what they cost, before any of them starts."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from orchestrator.verbs.options import (
    ClusterOption,
    HoursOption,
    RootsOption,
    StoreOption,
    StudyName,
    WorkersOption,
    roots_of,
    store_of,
)
from trainer.config import NUMERICS_VERSION, RunIds, Sources, located, missing, parse, require


def plan(
    study: StudyName,
    store: StoreOption = None,
    cluster: ClusterOption = None,
    data_root: RootsOption = None,
    workers: WorkersOption = None,
    max_gpu_hours: HoursOption = None,
    probe: Annotated[
        bool | None, typer.Option(help="time a few training steps without a time limit, or not at all [10 s at most]")
    ] = None,
    all_runs: Annotated[bool, typer.Option("--all", help="list every run of a long plan")] = False,
) -> None:
    """List every run of a study, what it changes, and what it costs: time, disk and money. Starts nothing. Without
    torch it lists them, and says what it could not check."""
    from cluster.spec import spec_of
    from cluster.spec_file import load as load_spec
    from cluster.spec_file import with_workers
    from orchestrator.prepare.jobs import Preparer
    from orchestrator.prepare.plugins import activate
    from orchestrator.prepare.room import refuse_unplaceable, unused_overrides
    from orchestrator.prepare.source_checks import not_here
    from orchestrator.search.learn_from import learn_from_line
    from orchestrator.search.resume import refuse_changed
    from orchestrator.state.stored_studies import load_study
    from orchestrator.state.study_state import StudyState
    from orchestrator.store.ledger import Ledger
    from orchestrator.terminal.plan_listing import show_batches, show_costs, show_plan

    if max_gpu_hours is not None:
        require("plan --max-gpu-hours", "torch")
    console = Console(highlight=False)
    where, spec = store_of(store, cluster), load_spec(cluster)
    spec, ledger = spec if workers is None else with_workers(spec, workers), Ledger(where.ledger)
    loaded = load_study(study, ledger)
    activate(loaded)
    roots = roots_of(loaded, data_root or [])
    preparer = Preparer(loaded.name, spec, where, roots)
    state = StudyState(loaded, ledger, Sources(NUMERICS_VERSION))
    if state.knows_configs:  # whether its runs can be reused depends on data and weights
        base = [parse(loaded.base)] if loaded.search is not None else []
        known = preparer.known_sources([*(run.plan.config for run in state.runs), *base])
        state = StudyState(loaded, ledger, known, before=state)
        for search in state.searches:
            refuse_changed(search, RunIds(known).of)
    refuse_unplaceable(state, spec)
    show_plan(state, console, whole=all_runs)
    lacks = missing("torch")
    unchecked = preparer.could_not_check(state)
    unchecked += filter(None, [unused_overrides(state, spec)])
    if any(not run.finished for run in state.runs) or state.searches:
        base = [parse(loaded.base)] if loaded.search is not None else []
        with located(loaded.name):
            lacking = not_here(preparer, [*(run.plan.config for run in state.runs), *base])
        unchecked += [f"not checked: {why}" for why in lacking if not any(why in line for line in unchecked)]
    from orchestrator.prepare.machine import slow_bf16

    if lacks:
        unchecked.append(f"not checked: structures, GMACs, limits, search space, time and cost: that needs {lacks}")
    elif slow := slow_bf16((spec_of(spec, run.plan.role, run.plan.arm), run.plan.config) for run in state.runs):
        unchecked.append(slow)
    for line in unchecked:
        console.print(Text(line, style="yellow"), soft_wrap=True)
    if taught := learn_from_line(loaded, ledger):
        console.print(Text(taught, style="dim"), soft_wrap=True)
    from orchestrator.prepare.estimate import estimate, refuse
    from orchestrator.prepare.limits import LimitsCheck, deployed
    from orchestrator.prepare.search_space import refuse_infeasible
    from orchestrator.terminal.cost import estimate_lines

    runs = [run.plan for run in state.runs]
    arms = deployed(loaded, runs)
    configs = {run.arm: run.config for run in runs} | arms
    given = {arm: spec_of(spec, "trial", "") for arm in arms}
    given |= {run.arm: spec_of(spec, run.role, run.arm) for run in runs}
    costs = {}
    for arm, config in configs.items():
        with located(f"{loaded.name}: {arm}"):
            config.optim.group_sizes(given[arm].least_workers, given[arm].most_workers, spec.micro_batch)
            if not lacks:
                costs[arm] = preparer.check(config)
    for each in {given[arm].workers: given[arm] for arm in configs}.values():
        alike = [config.optim for arm, config in configs.items() if given[arm].workers == each.workers]
        show_batches(alike, each, console)
    if lacks:
        return
    if costs:
        show_costs(costs, next(iter(configs.values())).data.size, console)
    with located(loaded.name):
        limits_check = LimitsCheck(loaded.limits, spec_of(spec, "arm", ""), where, ledger)
        limits_check.refuse(arms, costs)
    refuse_infeasible(loaded, preparer.check_trial, limits_check)
    if probe is not False and any(not run.finished for run in state.runs):
        typer.echo(f"timing a few training steps where no run has{', 10 s at most' if probe is None else ''}", err=True)
    spending = estimate(state, spec, where, preparer.roots, tries=probe)
    for line in estimate_lines(spending, spec):
        console.print(Text(line), soft_wrap=True)
    if max_gpu_hours is not None:
        refuse(spending, loaded.name, spec, max_gpu_hours)
