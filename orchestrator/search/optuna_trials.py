"""A search's trials as Optuna trials, for its samplers, importances and dashboard."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from ablations.study.search import Dimension, Search
from ablations.study.trial import Trial

STATES = {
    "finished": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "running": TrialState.WAITING,
}
"""`running` is WAITING, as Optuna does not run the trials."""


def directions(search: Search) -> list[str]:
    """The directions of the metric and of the cost, if the search has two objectives."""
    return ["maximize", "minimize"] if search.against else ["maximize"]


def in_memory(search: Search) -> optuna.Study:
    """An empty in-memory Optuna study that logs only warnings."""
    optuna.logging.set_verbosity(logging.WARNING)
    return optuna.create_study(directions=directions(search))


def distribution(dimension: Dimension) -> BaseDistribution:
    """The Optuna distribution of a dimension; a choice is by label."""
    if dimension.kind == "choice":
        return CategoricalDistribution(list(dimension.choices))
    if dimension.kind == "int":
        return IntDistribution(int(dimension.low), int(dimension.high))
    return FloatDistribution(dimension.low, dimension.high, log=dimension.kind == "log")


def scores(search: Search, trial: Trial) -> list[float] | None:
    """The objectives of a finished trial; None where one is not finite, as Optuna does not accept that."""
    found = [trial.metrics.get(search.metric, math.nan)]
    if search.against:
        found.append(trial.costs.get(search.against, math.nan))
    return found if trial.state == "finished" and all(map(math.isfinite, found)) else None


def optuna_trial(
    search: Search,
    trial: Trial,
    curve: Mapping[int, float] | None = None,
    *,
    facts: Mapping[str, Any] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> FrozenTrial:
    """A trial for Optuna. `curve` is the metric by epoch (one objective only), `facts` become user attributes,
    `attributes` system attributes.

    A stopped trial has its last value. A trial without a finite score has state FAIL.
    """
    values = scores(search, trial)
    state = STATES[trial.state]
    reached = {epoch: value for epoch, value in (curve or {}).items() if math.isfinite(value)}
    if trial.state == "stopped":
        last = trial.metrics.get(search.metric, math.nan)
        reached |= {trial.epochs: last} if math.isfinite(last) else {}
    if (state == TrialState.COMPLETE and values is None) or (state == TrialState.PRUNED and not reached):
        state = TrialState.FAIL
    return optuna.trial.create_trial(
        state=state,
        values=values,
        params=dict(trial.values),
        distributions={path: distribution(search.space[path]) for path in trial.values},
        intermediate_values={} if search.against else reached,
        user_attrs=dict(facts or {}),
        system_attrs=dict(attributes or {}),
    )
