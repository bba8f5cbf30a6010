"""The exact sign-flip test over several studies: their paired differences are strata, and each study weighs the same.

The statistic is the mean over the studies of the mean difference of each, in points of the metric. Under the null
hypothesis each difference of each study is symmetric about 0, that is, the arms differ in no study. All signs are then
equally likely given the sizes, whatever the numbers of pairs and the noise of each study. Where the studies have
differences that cancel out, the signs spread their sum wider than chance does, so that the test rejects less often.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ablations.statistics.inversion import lower_limit
from ablations.statistics.sign_flip import sign_flip_p, signed_sum_chances

MOST_EXACT = 32
"""Up to so many differences in all, p is exact."""
GRID_STEPS = 2048
"""With more, differences are rounded to this part of their mean size, and p is a bound from above."""


def mean_of_means(strata: Sequence[np.ndarray]) -> float:
    """The mean over the studies of the mean difference of each; NaN where one has none."""
    return float(np.mean([d.mean() if d.size else np.nan for d in strata]))


def stratified_p(strata: Sequence[np.ndarray]) -> float:
    """Two-sided p of the mean over the studies of the mean paired difference, (n_k,) each; 1 where one has none.

    Exact up to `MOST_EXACT` differences in all; above, a bound that is larger by less than 1 % down to p = 1e-4.
    """
    if not strata or not all(d.size for d in strata):
        return 1.0
    weighted = np.concatenate([d / d.size for d in strata])
    return sign_flip_p(weighted) if weighted.size <= MOST_EXACT else _bound(weighted)


def stratified_interval(strata: Sequence[np.ndarray], level: float) -> tuple[float, float]:
    """The values that the test of `stratified_p` does not reject at `level`, as the mean difference of all studies.

    Exact to a thousandth of the standard deviation of the differences; infinite where so few cannot reach the level.
    """
    if not strata or not all(d.size for d in strata):
        return -np.inf, np.inf

    def lower(signed: Sequence[np.ndarray]) -> float:
        def rejects(value: float) -> bool:
            return stratified_p([d - value for d in signed]) <= level

        return lower_limit(rejects, mean_of_means(signed), np.concatenate(signed))

    return lower(strata), -lower([-d for d in strata])


def _bound(d: np.ndarray) -> float:
    """A bound from above of the sign-flip p of differences (n,): each is rounded to a grid, and a sum of n of them
    counts as extreme where it is so within n / 2 steps, the most that rounding can have moved it."""
    sizes = np.abs(d)
    if not sizes.any():
        return 1.0
    unit = sizes.mean() / GRID_STEPS
    chances = signed_sum_chances(np.rint(sizes / unit).astype(int))
    size = chances.size - 1
    extreme = max(0, math.ceil((size + abs(d.sum()) / unit - d.size / 2) / 2))
    return min(1.0, 2.0 * float(chances[extreme:].sum()))
