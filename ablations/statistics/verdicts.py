"""Verdicts: from a study's runs and their outcomes to the runs of its table and the verdict on each contrast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ablations.statistics.blocks import observations
from ablations.statistics.factor_effects import count_tests
from ablations.statistics.outcome import Outcome, arms_not_ended, scores_by_arm
from ablations.statistics.paired import Comparison, compare_samples, differences_by_seed
from ablations.statistics.seed_looks import due_at, look_progress, with_intervals
from ablations.study.plan import Run
from ablations.study.schema import Study


class Contrast(NamedTuple):
    """The comparison of an arm with its reference."""

    arm: str
    reference: str
    found: Comparison
    pending: bool
    """Whether runs of either arm have not ended: there is no verdict yet."""

    @property
    def verdict(self) -> str:
        """`better`, `worse`, `equivalent`, `undecided` or `not yet`."""
        return "not yet" if self.pending else self.found.verdict


class StudyVerdicts(NamedTuple):
    """The runs that the table shows, the contrasts in their order, and the seeds of the last look begun."""

    runs: list[Run]
    contrasts: list[Contrast]
    look: int


def study_verdicts(study: Study, runs: Sequence[Run], outcomes: Mapping[str, Outcome]) -> StudyVerdicts:
    """The verdicts of a study from all its runs; runs of looks that are not needed are left out of the result."""
    if study.looks:
        progress = look_progress(study, runs, outcomes)
        compared = with_intervals(study, scores_by_arm(study, runs, outcomes), progress)
        pairs = zip(study.pairs, compared, strict=True)
        found = [Contrast(*pair, one, pair in progress.pending) for pair, one in pairs]
        return StudyVerdicts(due_at(study, runs, progress), found, progress.look)
    not_ended = arms_not_ended(runs, outcomes)
    pending = {pair for pair in study.pairs if not_ended & set(pair)}
    scores = scores_by_arm(study, runs, outcomes)
    samples = [
        observations(study, differences_by_seed(scores.get(arm, {}), scores.get(reference, {})))
        for arm, reference in study.pairs
    ]
    ended = [pair not in pending for pair in study.pairs]
    compared = compare_samples(samples, ended, study.margin, tests=count_tests(study))
    found = [Contrast(*pair, one, pair in pending) for pair, one in zip(study.pairs, compared, strict=True)]
    return StudyVerdicts(list(runs), found, len(study.seeds))
