"""Blocks: the independent observations of a study's tests: its seeds, or its teachers with the seeds of each.

The seeds take a study's teachers in turn, so that runs of one teacher are alike in what that teacher does to a
difference. Whole teachers are then exchangeable under the null hypothesis of no mean difference over all teachers that
the recipe may give; their seeds are not. With so few teachers that their 2**T signs decide nothing, seeds are tested,
and the hypothesis is of those teachers alone: under none of them is there a difference.

Nested, not crossed: n runs of an arm with n seeds have no larger variance than with n / T seeds under each of T
teachers, as they differ in T teachers either way, and in more seeds.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ablations.statistics.factor_effects import count_tests
from ablations.statistics.paired import can_decide
from ablations.study.schema import Study


def teachers_are_blocks(study: Study) -> bool:
    """Whether verdicts hold for teachers in general: of several, whole teachers are tested where they can decide a
    difference, and each seed may have its own."""
    return study.teachers > 1 and (study.teachers == len(study.seeds) or can_decide(study.teachers, count_tests(study)))


def block_count(study: Study) -> int:
    """The number of observations in each of the study's tests."""
    return study.teachers if teachers_are_blocks(study) else len(study.seeds)


def seeds_per_block(study: Study) -> int:
    """The number of seeds of each observation."""
    return len(study.seeds) // block_count(study)


def observations(study: Study, by_seed: Mapping[int, float]) -> np.ndarray:
    """The observations (blocks,) of a test, from a difference by seed: the mean over the seeds of each block. A block
    none of whose seeds has a difference is left out."""
    blocks: dict[int, list[float]] = {}
    for seed in sorted(by_seed):
        blocks.setdefault(study.seeds.index(seed) % block_count(study), []).append(by_seed[seed])
    return np.array([sum(found) / len(found) for found in blocks.values()])
