"""Phases: the runs and trials of a study that are still to come, in the order in which they wait for each other."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping
from statistics import median
from typing import NamedTuple

from ablations.study.early_stopping import MIN_FINISHED, passes_rung
from ablations.study.grid_points import grid_points
from ablations.study.plan import Run, proposes, space, trial_config
from ablations.study.schema import Study
from ablations.study.search import Search
from orchestrator.prepare.pace import structure
from orchestrator.state.study_state import SearchState, StudyState
from trainer.config import TrainConfig, UserError

DRAWS = 6
"""Proposals, drawn at random, that stand for what is likely of a search: each of its structures has its own pace."""

KINDS = 64
"""Structures and lengths of a search's trials beyond which these many, drawn at random, stand for all."""

SIMULATED = 2000
"""Trials of made-up searches that a likely cost is taken from."""


class Range(NamedTuple):
    """The least there can be, what is likely, and the most."""

    least: float
    likely: float
    most: float

    def times(self, factor: float) -> Range:
        """All three."""
        return Range(*(factor * value for value in self))


class Work(NamedTuple):
    """A run or a trial to come, the structure that decides its pace, and the epochs that it will train."""

    config: TrainConfig
    structure: str
    epochs: Range


class Phase(NamedTuple):
    """Work that may go on side by side, but for `beside`, where that is the most; the next phase waits for it.

    `kinds` is what each of a search's trials may turn out to be: their least and most bound every one of `work`.
    """

    work: list[Work]
    beside: int | None = None
    kinds: tuple[Work, ...] = ()


def phases(state: StudyState, *, retry_failed: bool = False) -> list[Phase]:
    """What is left of a study: teachers, its searches, and its arms, look by look. Runs that could not be checked
    count as left; what can only fail again does not, but with `retry_failed`."""
    study = state.study
    left = [run for run in state.runs if not run.finished]
    new = [run.plan for run in left if retry_failed or not state.is_final_failure(run)]
    result = [Phase([_whole(run, structure(run.config)) for run in new if run.role == "teacher"])]
    result += [_search(search) for search in state.searches]
    # Runs of one arm differ in their seeds: of 10,000 runs a few hundred are looked at.
    of_arm = {run.arm: run.config for run in new if run.role == "arm"}
    named = {arm: structure(config) for arm, config in of_arm.items()}
    begin = 0
    for end in study.looks or (len(study.seeds),):
        due = [_whole(run, named[run.arm]) for run in new if run.role == "arm" and run.seed in study.seeds[begin:end]]
        if begin:  # a look comes only where those before it have not decided
            due = [work._replace(epochs=work.epochs._replace(least=0.0)) for work in due]
        result.append(Phase(due))
        begin = end
    return [phase for phase in result if phase.work]


def trial_epochs(search: Search, epochs: int, trials: int) -> Range:
    """Mean epochs of a trial: the least where none is as good as the first, the most where none is stopped. Likely is
    what the rule itself lets trials train whose order is random, and that stand at each rung as they stood before."""
    if search.stop == "none":
        return Range(epochs, epochs, epochs)
    rng, searches = random.Random(0), 1 + SIMULATED // trials
    likely = sum(_spent(search, epochs, trials, rng.random) for _ in range(searches)) / searches
    worse = itertools.count(0, -1)
    return Range(_spent(search, epochs, trials, lambda: next(worse)) / trials, likely / trials, epochs)


def _spent(search: Search, epochs: int, trials: int, score: Callable[[], float]) -> int:
    """Epochs of a search whose trials follow one another."""
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
    beside = search.batch if search.deterministic else None
    means: dict[int, Range] = {}

    def trial(config: TrainConfig) -> Work:
        epochs = config.optim.epochs
        if epochs not in means:
            means[epochs] = trial_epochs(search, epochs, search.trials)
        return Work(config, structure(config), means[epochs])

    if search.sampler == "grid":
        points = grid_points(study.base, search, study.requires, study.excludes)[: search.trials]
        return Phase([trial(trial_config(study, point)) for n, point in enumerate(points) if n not in ended], beside)
    drawn = [trial(config) for config in _draws(study)]
    kinds = (*drawn, *(trial(config) for config in _kinds(study)))
    return Phase([drawn[i % len(drawn)] for i in range(max(0, search.trials - len(ended)))], beside, kinds)


def _kinds(study: Study) -> list[TrainConfig]:
    """A config of each structure and length that a trial can have, as far as they are no more than `KINDS`."""
    rng = random.Random(0)
    points: list[dict[str, object]] = [{}]
    for path, dimension in space(study).items():
        ends = [dimension.low, dimension.high] if dimension.kind == "int" else [dimension.high]
        values = list(dimension.choices) if dimension.kind == "choice" else ends
        found: dict[object, dict[str, object]] = {}
        for point in points:
            for value in values if proposes(study, path, point) else [None]:
                new = point if value is None else {**point, path: value}
                found.setdefault(_kind(study, new), new)
        points = list(found.values())
        points = rng.sample(points, KINDS) if len(points) > KINDS else points
    return [config for point in points if (config := _config(study, point)) is not None]


def _kind(study: Study, values: Mapping[str, object]) -> object:
    """What points have in common of which one is enough: structure, length, and the dimensions that apply beside it."""
    config = _config(study, values)
    if config is None:  # what is proposed after it may make it feasible
        return tuple(values.items())
    return structure(config), config.optim.epochs, *(proposes(study, path, values) for path in space(study))


def _draws(study: Study) -> list[TrainConfig]:
    """Configs of random proposals; of one that is infeasible there will be no trial."""
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


def _whole(run: Run, name: str) -> Work:
    epochs = run.config.optim.epochs
    return Work(run.config, name, Range(epochs, epochs, epochs))
