"""The table of a study from its state, and the trials of a search for display."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from ablations.table.arms import build_table
from ablations.table.shape import Table
from ablations.table.short_notes import room
from ablations.table.trials import search_table
from orchestrator.state.outcomes import hardware
from orchestrator.state.proposals import Proposal, imported_trials
from orchestrator.state.study_state import SearchState, StudyState
from trainer.config import missing


def trials(state: StudyState, search: SearchState) -> list[Proposal]:
    """The proposals of a search for display: a failed one has the epochs that it trained before it failed."""
    found = []
    for run_id, trial in search.history:
        run = state.entries.get(run_id)
        if trial.state == "failed" and run is not None and run.status == "failed" and run.epochs:
            last = dict(run.epochs[-1])
            trial = replace(trial, epochs=int(last["epoch"]), metrics=last)
        found.append(Proposal(run_id, trial))
    return found


def table(state: StudyState) -> Table:
    """The study's table: of arms, or of the best trials where the study is a search."""
    return _ranking(state) if state.study.search is not None else _arms(state)


def _ranking(state: StudyState) -> Table:
    history = trials(state, state.searches[0])
    taught = Counter(whose for whose, _ in imported_trials(state.study, state.ledger) or [])
    ranking = search_table(state.study, [trial for _, trial in history], taught=taught)
    if told := missing("optuna"):
        return replace(ranking, explained=(*ranking.explained, f"Importance is not computed: that needs {told}."))
    from orchestrator.search.importance import importances

    shares = importances(state.study, history)
    if not shares:
        return ranking
    listed = ", ".join(f"{path} {share:.2f}" for path, share in sorted(shares.items(), key=lambda kv: -kv[1]))
    return replace(ranking, explained=(*ranking.explained, f"Importance (PED-ANOVA of the finished trials): {listed}."))


def _arms(state: StudyState) -> Table:
    plan = [run.plan for run in state.runs]
    costs = {
        run.plan.key: {**run.run.complexity, "hardware": hardware(run.run.environment)}
        for run in state.runs
        if run.run.complexity
    }
    found = build_table(state.study, plan, state.outcomes, costs, state.tuned)
    uncounted = state.uncounted()
    left_out = any(text.startswith("Not counted: ") for text in uncounted)
    short = ["not counted: finished runs of other data, weights or numerics"] if left_out else []
    short += ["computed by another numerics version"] if len(uncounted) > left_out else []
    return replace(found, notes=(*short, *found.notes)[: room(state.study)], explained=(*uncounted, *found.explained))
