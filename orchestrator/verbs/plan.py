"""plan: every run of a study, what it changes and what it costs, before any of them starts."""

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
from trainer.config import located


def plan(
    study: StudyName,
    store: StoreOption = None,
    cluster: ClusterOption = None,
    data_root: RootsOption = None,
    workers: WorkersOption = None,
    max_gpu_hours: HoursOption = None,
    probe: Annotated[
        bool | None, typer.Option(help="try a few steps, however long they take, or never [for 10 s at most]")
    ] = None,
    all_runs: Annotated[bool, typer.Option("--all", help="list every run of a long plan")] = False,
) -> None:
    """List every run of a study, what it changes, and what it costs: time, disk and money. Starts nothing."""
    from ablations.study.schema import load
    from cluster.spec import load as load_spec
    from cluster.spec import with_workers
    from orchestrator.search.learn_from import learns_from
    from orchestrator.state.runs import known
    from orchestrator.state.tuned_arms import planned
    from orchestrator.store.ledger import Ledger
    from orchestrator.terminal.plan_listing import show_costs, show_plan

    console = Console(highlight=False)
    loaded, where, spec = load(study), store_of(store, cluster), load_spec(cluster)
    spec = spec if workers is None else with_workers(spec, workers)
    roots, ledger = roots_of(loaded, data_root or []), Ledger(where.ledger)
    runs = planned(loaded, ledger)
    show_plan(loaded, runs, known(loaded, ledger), console, whole=all_runs)
    if taught := learns_from(loaded, ledger):
        console.print(Text(taught, style="dim"), soft_wrap=True)
    from orchestrator.prepare.estimate import estimate, refuse
    from orchestrator.prepare.jobs import Preparer
    from orchestrator.prepare.limits import Bounds, deployed
    from orchestrator.prepare.search_space import refuse_infeasible
    from orchestrator.terminal.cost import bill

    arms = deployed(loaded, runs)
    configs = {run.arm: run.config for run in runs} | arms
    preparer = Preparer(loaded.name, spec, where, roots)
    costs = {}
    for arm, config in configs.items():
        with located(f"{loaded.name}: {arm}"):
            costs[arm] = preparer.check(config)
    if costs:
        show_costs(costs, next(iter(configs.values())).data.size, console)
    with located(loaded.name):
        bounds = Bounds(loaded.limits, spec, where, ledger)
        bounds.refuse(arms, costs)
    refuse_infeasible(loaded, preparer.check, bounds)
    spending = estimate(loaded, runs, ledger, spec, where, roots, tries=probe)
    for line in bill(spending, spec):
        console.print(Text(line), soft_wrap=True)
    if max_gpu_hours is not None:
        refuse(spending, loaded.name, spec, max_gpu_hours)
