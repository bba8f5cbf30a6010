"""Contrasts: a study's runs and their outcomes -> the runs that count, and the verdict on each contrast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ablations.statistics.factor_effects import tests_of
from ablations.statistics.outcome import MISSING, Outcome, scores_of
from ablations.statistics.paired import Comparison, compare
from ablations.statistics.seed_looks import course, due_at
from ablations.study.plan import Run
from ablations.study.schema import Study


class Contrast(NamedTuple):
    """What is known of an arm against its reference."""

    arm: str
    reference: str
    found: Comparison
    pending: bool
    """Whether runs of either have still to end: there is no verdict yet."""

    @property
    def verdict(self) -> str:
        """`better`, `worse`, `equivalent`, `undecided` or `not yet`."""
        return "not yet" if self.pending else self.found.verdict


class Judged(NamedTuple):
    """The runs that stand in the table, the contrasts in their order, and the look a study with looks has come to."""

    runs: list[Run]
    contrasts: list[Contrast]
    look: int


def judged(study: Study, runs: Sequence[Run], outcomes: Mapping[str, Outcome]) -> Judged:
    """The verdicts of a study from all its runs; seeds of looks that are not needed leave with no trace."""
    if study.looks:
        came = course(study, runs, outcomes)
        pairs = zip(study.pairs, came.comparisons, strict=True)
        found = [Contrast(*pair, compared, pair in came.pending) for pair, compared in pairs]
        return Judged(due_at(study, runs, came), found, came.look)
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.arm, []).append(run)
    waiting = {run.arm for run in runs if outcomes.get(run.key, MISSING).status in ("missing", "running")}
    pending = {pair for pair in study.pairs if waiting & set(pair)}
    scores = {arm: scores_of(study, group, outcomes) for arm, group in groups.items()}
    compared = compare(scores, study.pairs, study.margin, pending, tests=tests_of(study))
    found = [Contrast(*pair, one, pair in pending) for pair, one in zip(study.pairs, compared, strict=True)]
    return Judged(list(runs), found, len(study.seeds))
