"""Table of trials: the best trials of a search, ranked."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence

from ablations.statistics.pareto import front
from ablations.study.arms import brief_label, short
from ablations.study.plan import space
from ablations.study.schema import Study
from ablations.study.search import Search
from ablations.study.trial import Trial
from ablations.table.shape import Column, Row, Table, number
from trainer.config import counted

_ORDER = {"finished": 0, "stopped": 1, "running": 2, "failed": 3}


def search_table(
    study: Study, trials: Sequence[Trial], top: int = 10, taught: Mapping[str, int] | None = None
) -> Table:
    """The `top` trials by the search's metric. Finished trials come first, as stopped ones were scored at an earlier
    epoch. With a cost as second objective, the finished trials on the Pareto front are marked and come before others.

    `taught` counts, by study, the earlier trials from which the search learnt before its first proposal.
    """
    search = study.search
    assert search is not None, "a study with arms has no trials of its own to rank"

    on_front = _front(search, trials)

    def rank(trial: Trial) -> tuple[int, bool, float, int]:
        score = trial.metrics.get(search.metric, math.nan)
        dominated = trial.number not in on_front
        return _ORDER[trial.state], dominated, -score if math.isfinite(score) else math.inf, trial.number

    best = sorted(trials, key=rank)[:top]
    paths = list(space(study))
    columns = (
        Column("trial", right=True),
        *(Column(path if short(path) == "epochs" else short(path), right=True) for path in paths),
        Column(search.metric, right=True),
        Column(study.metric, right=True),
        *([Column(search.against, right=True), Column("front")] if search.against else []),
        Column("epochs", right=True),
        Column("state"),
    )
    return Table(
        title=f"{study.name}   {len(trials)} of {counted(search.trials, 'trial')}, {search.sampler}, by {search.metric}"
        + (f" against {search.against}" if search.against else ""),
        columns=columns,
        rows=tuple(_row(study, search, trial, paths, trial.number in on_front) for trial in best),
        notes=tuple(_short_notes(search, trials)),
        next_step=_next_step(study, search, trials),
        explained=tuple(_explained(study, search, trials, taught or {})),
    )


def _front(search: Search, trials: Sequence[Trial]) -> set[int]:
    """Numbers of the finished trials on the Pareto front of metric and cost; empty where there is one objective."""
    done = [trial for trial in trials if trial.state == "finished"] if search.against else []
    points = [(t.metrics.get(search.metric, math.nan), t.costs.get(search.against or "", math.nan)) for t in done]
    return {done[i].number for i in front(points)}


def _row(study: Study, search: Search, trial: Trial, paths: Sequence[str], best: bool) -> Row:
    scores = [trial.metrics.get(search.metric), trial.metrics.get(study.metric)]
    proposed = ["" if path not in trial.values else brief_label(trial.values[path]) for path in paths]
    cost = trial.costs.get(search.against) if search.against else None
    # Significant digits instead of decimals: a small student has thousandths of a GMAC.
    against = ["-" if cost is None else brief_label(cost), "front" if best else ""] if search.against else []
    return Row(
        (str(trial.number), *proposed, *map(number, scores), *against, str(trial.epochs), trial.state),
        {
            "trial": trial.number,
            **trial.values,
            search.metric: scores[0],
            study.metric: scores[1],
            **({search.against: cost, "front": best} if search.against else {}),
            "epochs": trial.epochs,
            "state": trial.state,
        },
    )


def _next_step(study: Study, search: Search, trials: Sequence[Trial]) -> str:
    name, left = shlex.quote(study.name), search.trials - sum(trial.state != "running" for trial in trials)
    step = f"transkd run {name} trains the {counted(left, 'trial')} left"
    step = step if left > 0 else "confirm the best trial in a study with several seeds"
    return f"next: {step}; transkd explain {name} explains the table"


def _short_notes(search: Search, trials: Sequence[Trial]) -> list[str]:
    counts = {state: sum(trial.state == state for trial in trials) for state in _ORDER}
    notes = [", ".join(f"{count} {state}" for state, count in counts.items() if count) or "no trial yet"]
    return [*notes, f"ranked by {search.metric}; each trial has one seed"]


def _explained(study: Study, search: Search, trials: Sequence[Trial], taught: Mapping[str, int]) -> list[str]:
    notes = [
        f"Trials are ranked by {search.metric}, never by {study.metric}. Finished trials come before stopped ones, "
        "which were scored at an earlier epoch. Each trial has one seed, and the score of the best is biased upwards: "
        "confirm it in a study with several seeds.",
        *(f"Failed: trial {t.number}: {t.reason or 'no reason given'}." for t in trials if t.state == "failed"),
    ]
    if search.against:
        notes.append(f"Front: no finished trial is better in both {search.metric} and {search.against}.")
    if search.learn_from:
        told = ", ".join(f"{count} of {name}" for name, count in taught.items()) or "none was found"
        notes.append(f"Earlier trials that the search learnt from before its first proposal: {told}.")
    return notes
