"""Ranking: the trials of a search -> a table of the best configurations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ablations.arms import label, short
from ablations.plan import space
from ablations.study import Study
from ablations.table import Column, Row, Table, number

_ORDER = {"finished": 0, "stopped": 1, "running": 2, "failed": 3}


@dataclass(frozen=True)
class Trial:
    """One proposal of a search and what came of it; `metrics` are those of its last epoch."""

    number: int
    values: dict[str, Any]
    state: Literal["finished", "stopped", "running", "failed"]
    epochs: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    reason: str = ""


def search_table(study: Study, trials: Sequence[Trial], top: int = 10) -> Table:
    """The `top` trials. Finished ones first, by the search's metric: a stopped one was scored at an earlier epoch."""
    search = study.search
    assert search is not None, "a study with arms has a table, not a ranking"

    def rank(trial: Trial) -> tuple[int, float, int]:
        score = trial.metrics.get(search.metric, math.nan)
        return _ORDER[trial.state], -score if math.isfinite(score) else math.inf, trial.number

    best = sorted(trials, key=rank)[:top]
    paths = list(space(study))
    columns = (
        Column("trial", right=True),
        *(Column(short(path), right=True) for path in paths),
        Column(search.metric, right=True),
        Column(study.metric, right=True),
        Column("epochs", right=True),
        Column("state"),
    )
    return Table(
        title=f"{study.name}   {len(trials)} of {search.trials} trials, {search.sampler}, by {search.metric}",
        columns=columns,
        rows=tuple(_row(trial, paths, search.metric, study.metric) for trial in best),
        notes=tuple(_notes(study, trials)),
    )


def _row(trial: Trial, paths: Sequence[str], selected_by: str, reported: str) -> Row:
    scores = [trial.metrics.get(selected_by), trial.metrics.get(reported)]
    proposed = ["" if path not in trial.values else label(_brief(trial.values[path])) for path in paths]
    return Row(
        (str(trial.number), *proposed, *map(number, scores), str(trial.epochs), trial.state),
        {
            "trial": trial.number,
            **trial.values,
            selected_by: scores[0],
            reported: scores[1],
            "epochs": trial.epochs,
            "state": trial.state,
        },
    )


def _brief(value: Any) -> Any:
    return float(f"{value:.3g}") if isinstance(value, float) else value


def _notes(study: Study, trials: Sequence[Trial]) -> list[str]:
    counts = {state: sum(trial.state == state for trial in trials) for state in _ORDER}
    notes = [", ".join(f"{count} {state}" for state, count in counts.items() if count) or "no trial yet"]
    notes += [f"failed: trial {t.number}: {t.reason or 'no reason given'}" for t in trials if t.state == "failed"]
    notes.append(
        f"{study.metric} is reported and was not selected by; one seed a trial: "
        "confirm the winner with a study of several seeds"
    )
    return notes
