"""Phases: the runs and trials of a study that are still to be trained, in the order of their dependencies."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping
from statistics import median
from typing import NamedTuple

from ablations.study.early_stopping import MIN_FINISHED, passes_rung
from ablations.study.grid_points import grid_points
from ablations.study.plan import proposes, space, trial_config
from ablations.study.schema import Study
from ablations.study.search import Search
from orchestrator.prepare.pace import structure
from orchestrator.state.study_state import SearchState, StudyRun, StudyState
from trainer.config import TrainConfig, UserError

DRAWS = 6
"""Random proposals that the likely time of a search is computed from, as each structure has its own pace."""

MOST_STRUCTURES = 64
"""A search's bounds are computed from at most so many structures; of more, a random sample is taken."""

SIMULATED = 2000
"""Simulated trials that the likely number of epochs is computed from."""


class Range(NamedTuple):
    """Lower bound, likely value and upper bound."""

    least: float
    likely: float
    most: float

    def times(self, factor: float) -> Range:
        """The range times a factor."""
        return Range(*(factor * value for value in self))


class PendingRun(NamedTuple):
    """A run or trial that is still to be trained: its config, its structure (see `Pace`) and the epochs left."""

    config: TrainConfig
    structure: str
    epochs: Range
    teacher: str = ""
    """The key of the run that trains its teacher, "" where there is none."""
    done: int = 0
    """Epochs that it has trained."""
    role: str = "trial"
    arm: str = ""


class Phase(NamedTuple):
    """Runs that may train in parallel, `at_once` at most (None: no limit); the next phase starts when all have ended.

    `possible` is what each trial of a search may turn out to be: the bounds of every one of `runs` come from it.
    `apart`: each run trains alone, whatever the spec says.
    """

    runs: list[PendingRun]
    at_once: int | None = None
    possible: tuple[PendingRun, ...] = ()
    apart: bool = False


def phases(state: StudyState, *, retry_failed: bool = False) -> list[Phase]:
    """The phases that are left: teachers, searches, and arms, look by look. Runs that could not be checked count as
    left; runs that can only fail again do so with `retry_failed` alone."""
    study = state.study
    left = [run for run in state.runs if not run.finished]
    new = [run for run in left if retry_failed or not state.is_final_failure(run)]
    result = [Phase([_rest(run, structure(run.plan.config)) for run in new if run.plan.role == "teacher"])]
    result += [_search(search) for search in state.searches]
    # runs of one arm differ only in their seed: its structure is computed once
    arms = [run for run in new if run.plan.role == "arm"]
    of_arm = {run.plan.arm: run.plan.config for run in arms}
    named = {arm: structure(config) for arm, config in of_arm.items()}
    begin = 0
    for end in study.looks or (len(study.seeds),):
        due = [_rest(run, named[run.plan.arm]) for run in arms if run.plan.seed in study.seeds[begin:end]]
        if begin:  # a look is only reached if the earlier ones have not decided
            due = [run._replace(epochs=run.epochs._replace(least=0.0)) for run in due]
        result.append(Phase(due))
        begin = end
    return [phase for phase in result if phase.runs]


def trial_epochs(search: Search, epochs: int, trials: int) -> Range:
    """Mean epochs of a trial. Least: no trial beats the first; most: none is stopped; likely: from simulated searches
    where each trial has one random score at all rungs."""
    if search.stop == "none":
        return Range(epochs, epochs, epochs)
    rng, searches = random.Random(0), 1 + SIMULATED // trials
    likely = sum(_spent(search, epochs, trials, rng.random) for _ in range(searches)) / searches
    worse = itertools.count(0, -1)
    return Range(_spent(search, epochs, trials, lambda: next(worse)) / trials, likely / trials, epochs)


def _spent(search: Search, epochs: int, trials: int, score: Callable[[], float]) -> int:
    """Total epochs of a simulated sequential search; `score` gives the score of each trial."""
    stood: dict[tuple[int, int], list[float]] = {}
    finished: list[float] = []
    total = 0
    for number in range(trials):
        value, end = score(), epochs
        bracket = search.bracket(number)
        for rung in search.rungs(epochs, bracket):
            others = stood.setdefault((bracket, rung), [])
            passes = passes_rung(value, others, search.eta)
            others.append(value)
            if not passes:
                end = rung
                break
        if search.stop == "median" and len(finished) >= MIN_FINISHED and value < median(finished):
            end = search.min_epochs
        if end == epochs:
            finished.append(value)
        total += end
    return total


def _search(state: SearchState) -> Phase:
    study, search = state.study, state.search
    ended = {trial.number for trial in state.trials if trial.state != "running"}
    at_once = search.batch if search.deterministic else None
    means: dict[int, Range] = {}

    def trial(config: TrainConfig) -> PendingRun:
        epochs = config.optim.epochs
        if epochs not in means:
            means[epochs] = trial_epochs(search, epochs, search.trials)
        return PendingRun(config, structure(config), means[epochs])

    if search.sampler == "grid":
        points = grid_points(study.base, search, study.requires, study.excludes)[: search.trials]
        left = [trial(trial_config(study, point)) for n, point in enumerate(points) if n not in ended]
        return Phase(left, at_once, apart=not search.deterministic)
    drawn = [trial(config) for config in _draws(study)]
    possible = (*drawn, *(trial(config) for config in _possible_configs(study)))
    left = [drawn[i % len(drawn)] for i in range(max(0, search.trials - len(ended)))]
    return Phase(left, at_once, possible, apart=not search.deterministic)


def _possible_configs(study: Study) -> list[TrainConfig]:
    """A config of each structure and number of epochs that a trial can have; a sample where there are too many."""
    rng = random.Random(0)
    points: list[dict[str, object]] = [{}]
    for path, dimension in space(study).items():
        ends = [dimension.low, dimension.high] if dimension.kind == "int" else [dimension.high]
        values = list(dimension.choices) if dimension.kind == "choice" else ends
        found: dict[object, dict[str, object]] = {}
        for point in points:
            for value in values if proposes(study, path, point) else [None]:
                new = point if value is None else {**point, path: value}
                found.setdefault(_equivalence(study, new), new)
        points = list(found.values())
        points = rng.sample(points, MOST_STRUCTURES) if len(points) > MOST_STRUCTURES else points
    return [config for point in points if (config := _config(study, point)) is not None]


def _equivalence(study: Study, values: Mapping[str, object]) -> object:
    """Points with equal values are equivalent: same structure, epochs and dimensions that still apply."""
    config = _config(study, values)
    if config is None:  # values of later dimensions may make it feasible
        return tuple(values.items())
    return structure(config), config.optim.epochs, *(proposes(study, path, values) for path in space(study))


def _draws(study: Study) -> list[TrainConfig]:
    """Configs of random feasible proposals."""
    rng = random.Random(0)
    found: list[TrainConfig] = []
    while len(found) < DRAWS:
        values: dict[str, object] = {}
        for path, dimension in space(study).items():
            if proposes(study, path, values):
                ends = (dimension.low, dimension.high)
                values[path] = rng.choice(list(dimension.choices) if dimension.kind == "choice" else ends)
        if (config := _config(study, values)) is not None:
            found.append(config)
    return found


def _config(study: Study, values: Mapping[str, object]) -> TrainConfig | None:
    try:
        return trial_config(study, values)
    except UserError:
        return None


def _rest(run: StudyRun, name: str) -> PendingRun:
    left, who = run.epochs_left, (run.plan.role, run.plan.arm)
    return PendingRun(run.plan.config, name, Range(left, left, left), run.plan.needs or "", run.epochs_done, *who)
