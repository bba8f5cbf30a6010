"""plan: every run of a study, what it changes and what it costs, before any of them starts."""

from __future__ import annotations

from rich.console import Console

from orchestrator.verbs.options import ClusterOption, StoreOption, StudyName, store_of
from trainer.config import located


def plan(study: StudyName, store: StoreOption = None, cluster: ClusterOption = None) -> None:
    """List every run of a study, what it changes, and what it costs. Starts nothing."""
    from ablations.plan import expand
    from ablations.study import load
    from orchestrator.ledger import Ledger
    from orchestrator.listing import show_costs, show_plan
    from orchestrator.results import known

    console = Console(highlight=False)
    loaded, where = load(study), store_of(store, cluster)
    runs = expand(loaded)
    show_plan(loaded, runs, known(loaded, Ledger(where.ledger)), console)
    from trainer.build import check

    firsts = {run.arm: run.config for run in reversed(runs)}
    costs = {}
    for arm in dict.fromkeys(run.arm for run in runs):
        with located(f"{loaded.name}: {arm}"):
            costs[arm] = check(firsts[arm], where.cache)
    if costs:
        show_costs(costs, runs[0].config.data.size, console)
