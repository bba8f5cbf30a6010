"""Tuned: the searches of a study's variants as the ledger has them, and the runs that follow from their winners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ablations.statistics.outcome import Outcome
from ablations.statistics.winners import Tuned, winners
from ablations.study.plan import Run, expand
from ablations.study.schema import Study
from ablations.study.variant_search import searches
from orchestrator.state.proposals import proposals
from orchestrator.store.ledger import Ledger


def tuning(study: Study, ledger: Ledger) -> dict[str, Tuned]:
    """By arm, the search that comes before it, as far as it has come; empty where nothing is tuned."""
    if study.tune_each is None:
        return {}
    return {
        arm: Tuned(search.search, tuple(t for _, t in proposals(search, ledger) if t.number < search.search.trials))
        for arm, search in searches(study).items()
        if search.search is not None
    }


def planned(study: Study, ledger: Ledger) -> list[Run]:
    """All runs of a study that are known now: an arm whose search has ended is its winner."""
    return expand(study, winners(tuning(study, ledger)))


def awaited(runs: Sequence[Run], tuned: Mapping[str, Tuned]) -> dict[str, Outcome]:
    """By key, what there is to say of runs whose search has no winner: it goes on, or nothing of it finished."""
    return {
        run.key: Outcome("missing" if tuned[run.arm].left else "failed", reason=tuned[run.arm].reason)
        for run in runs
        if run.awaits
    }
