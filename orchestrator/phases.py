"""Phases: the runs and trials of a study that are still to come, in the order in which they wait for each other."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

from ablations.plan import Run, proposes, space, trial_config
from ablations.space import Search
from ablations.stopping import FEWEST, passes_rung
from ablations.study import Study
from ablations.tuning import searches
from orchestrator.ledger import Ledger, LedgerRun
from orchestrator.pace import structure
from orchestrator.proposals import proposals
from orchestrator.results import known
from trainer.config import TrainConfig, UserError, parse

DRAWS = 6
"""Proposals, drawn at random, that stand for all of a search: each of its structures has its own pace."""


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
    """Work that may go on side by side, but for `beside`, where that is the most; the next phase waits for it."""

    work: list[Work]
    beside: int | None = None


def phases(study: Study, runs: Sequence[Run], ledger: Ledger) -> list[Phase]:
    """What is left of a study: teachers, its searches, and its arms, look by look."""
    there = known(study, ledger)
    new = [run for run in runs if not (there and _finished(there.get(run.key)))]
    result = [Phase([_whole(run, structure(run.config)) for run in new if run.role == "teacher"])]
    result += [_search(search, ledger) for search in searches(study).values()]
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
        if search.stop == "median" and len(finished) >= FEWEST and value < median(finished):
            end = search.min_epochs
        if end == epochs:
            finished.append(value)
        total += end
    return total


def _search(study: Study, ledger: Ledger) -> Phase:
    search = study.search
    assert search is not None
    left = max(0, search.trials - sum(trial.state != "running" for _, trial in proposals(study, ledger)))
    epochs = trial_epochs(search, parse(study.base).optim.epochs, search.trials)
    drawn = [Work(config, structure(config), epochs) for config in _draws(study)]
    return Phase([drawn[i % len(drawn)] for i in range(left)], search.batch if search.deterministic else None)


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
        try:
            found.append(trial_config(study, values))
        except UserError:
            continue
    return found


def _whole(run: Run, name: str) -> Work:
    epochs = run.config.optim.epochs
    return Work(run.config, name, Range(epochs, epochs, epochs))


def _finished(run: LedgerRun | None) -> bool:
    return run is not None and run.status == "finished"
