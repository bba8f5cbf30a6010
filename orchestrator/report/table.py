"""The table of a study as its ledger stands, and the trials of a search as people read them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from ablations.statistics.winners import winners
from ablations.study.plan import expand
from ablations.study.schema import Study
from ablations.table.arms import Table, build_table
from ablations.table.trials import search_table
from orchestrator.state.proposals import Proposal, proposals, told
from orchestrator.state.runs import hardware, of_study, outcome
from orchestrator.state.tuned_arms import awaited, tuning
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger


def trials(study: Study, ledger: Ledger) -> list[Proposal]:
    """The proposals of a search, as people read them: one that failed has the epochs that it trained before it did."""
    runs = ledger.outcomes()
    found = []
    for run_id, trial in proposals(study, ledger):
        run = runs.get(run_id)
        if trial.state == "failed" and run is not None and run.status == "failed" and run.epochs:
            last = run.epochs[-1]
            trial = replace(trial, epochs=int(last["epoch"]), metrics=last)
        found.append(Proposal(run_id, trial))
    return found


def table(study: Study, store: Store) -> Table:
    """The study's table as the ledger stands now; a search's best trials where the study is a search."""
    ledger = Ledger(store.ledger)
    if study.search is not None:
        from orchestrator.search.importance import importances

        history = trials(study, ledger)
        taught = Counter(whose for whose, _ in told(study, ledger) or [])
        ranking = search_table(study, [trial for _, trial in history], taught=taught)
        shares = importances(study, history)
        if not shares:
            return ranking
        listed = ", ".join(f"{path} {share:.2f}" for path, share in sorted(shares.items(), key=lambda kv: -kv[1]))
        note = f"importance (PED-ANOVA of the finished trials): {listed}"
        return Table(ranking.title, ranking.columns, ranking.rows, (*ranking.notes, note))
    runs = of_study(study, ledger)
    tuned = tuning(study, ledger)
    plan = expand(study, winners(tuned))
    outcomes = {key: outcome(run) for key, run in runs.items()} | awaited(plan, tuned)
    costs = {
        key: {**run.complexity, "hardware": hardware(run.environment)} for key, run in runs.items() if run.complexity
    }
    return build_table(study, plan, outcomes, costs, tuned)
