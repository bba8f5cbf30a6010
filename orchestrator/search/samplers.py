"""Samplers by name. A new sampler is made for each proposal, so that a proposal is a function of (seed, number, results
told before). CMA-ES and NSGA-II keep their state in the Optuna study.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import optuna
from optuna.samplers import BaseSampler, CmaEsSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from ablations.study.search import Search

PATIENCE = 10
"""Infeasible proposals in a row after which random ones follow: samplers learn nothing from infeasible points, and TPE
would propose a choice that is always refused again and again."""

WARM_START = 10
"""Minimum of imported results for warm-starting CMA-ES: mean and covariance come from the best tenth (Nomura et al.,
AAAI 2021)."""

GENERATION = "NSGAIISampler:generation"
"""The attribute by which NSGA-II finds a generation's trials."""


def _random(search: Search, seed: int, told: Sequence[FrozenTrial]) -> BaseSampler:
    return RandomSampler(seed=seed)


def _tpe(search: Search, seed: int, told: Sequence[FrozenTrial]) -> BaseSampler:
    return TPESampler(seed=seed, n_startup_trials=search.startup, multivariate=True, group=True, constant_liar=True)


def _cmaes(search: Search, seed: int, told: Sequence[FrozenTrial]) -> BaseSampler:
    whole = [trial for trial in told if trial.state == TrialState.COMPLETE]
    return CmaEsSampler(
        seed=seed,
        n_startup_trials=search.startup,
        source_trials=whole if len(whole) >= WARM_START else None,
        consider_pruned_trials=search.stop != "none",
        warn_independent_sampling=False,
    )


def _nsga2(search: Search, seed: int, told: Sequence[FrozenTrial]) -> BaseSampler:
    return NSGAIISampler(seed=seed, population_size=search.startup)


SAMPLERS: dict[str, Callable[[Search, int, Sequence[FrozenTrial]], BaseSampler]] = {
    "tpe": _tpe,
    "cmaes": _cmaes,
    "nsga2": _nsga2,
    "grid": _random,  # the points are given
    "random": _random,
}


def sampler(search: Search, number: int, attempt: int = 0, told: Sequence[FrozenTrial] = ()) -> BaseSampler:
    """The sampler of proposal `number`, asked for the `attempt`-th time; `told` are the results of other searches."""
    seed = int(np.random.SeedSequence([search.seed, number, attempt]).generate_state(1)[0])
    make = _random if attempt >= PATIENCE else SAMPLERS[search.sampler]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return make(search, seed, told)
