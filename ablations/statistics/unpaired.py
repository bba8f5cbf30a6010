"""Unpaired samples: the permutation test of two means, the interval that inverts it, and the verdicts by it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from ablations.statistics.holm import FAMILY_WISE
from ablations.statistics.paired import Comparison, adjust, mean_std, verdict

MAX_ENUMERATED = 1_000_000
"""Up to so many ways to deal the values to two arms, all are enumerated: 11 values against 11, or 3 against 180."""
DRAWN = 100_000
"""Of more ways so many are drawn, with the seed 0."""
AT_ONCE = 4_000_000
"""Random numbers that are in memory at once."""
P_ERROR = 2 * math.sqrt(FAMILY_WISE / 2 * (1 - FAMILY_WISE / 2) / DRAWN)
"""The standard error of a p of 0.05 that comes from drawn ways."""


@dataclass(frozen=True)
class Permutations:
    """The permutation test of two samples: all ways to deal their values to two arms of the same sizes, or a draw.

    A way swaps k >= 1 values of the arm against k of the reference. If the arm is better by v, it leaves the difference
    of the means at least as large if and only if the mean of the arm's k values less that of the reference's is at most
    v. So these differences, `swapped` (ways - 1,), give the p of every v, and their order statistics the interval.
    """

    swapped: np.ndarray

    def p(self) -> float:
        """Two-sided p of equal means: twice the smaller of the one-sided p."""
        lower, upper = np.count_nonzero(self.swapped <= 0), np.count_nonzero(self.swapped >= 0)
        return min(1.0, 2.0 * (1 + min(lower, upper)) / (1 + self.swapped.size))

    def interval(self, level: float) -> tuple[float, float]:
        """The differences of the means that the test does not reject at `level`; (-inf, inf) where it never rejects."""
        extreme = math.floor(level / 2 * (1 + self.swapped.size) * (1 + 1e-12))
        if extreme < 1:
            return -math.inf, math.inf
        means = np.partition(self.swapped, (extreme - 1, -extreme))
        return float(means[extreme - 1]), float(means[-extreme])


def permutations(arm: Sequence[float] | np.ndarray, reference: Sequence[float] | np.ndarray) -> Permutations:
    """The test of two samples of one value or more: exact up to `MAX_ENUMERATED` ways, else by `DRAWN` ways."""
    values = np.array([*arm, *reference], dtype=float)
    values -= values.mean()
    own, others = values[: len(arm)], values[len(arm) :]
    swapped = _all(own, others) if is_exact(len(arm), len(reference)) else _drawn(own, others)
    # Means that are equal in theory differ by rounding errors: they are ties.
    swapped[np.abs(swapped) <= 1e-9 * np.abs(values).max()] = 0.0
    return Permutations(swapped)


def is_exact(n: int, other: int) -> bool:
    """Whether all ways to deal n and `other` values are enumerated."""
    return math.comb(n + other, n) <= MAX_ENUMERATED


def _all(arm: np.ndarray, reference: np.ndarray) -> np.ndarray:
    swaps = range(1, min(arm.size, reference.size) + 1)
    return np.concatenate([((_sums(arm, k)[:, None] - _sums(reference, k)) / k).ravel() for k in swaps])


def _sums(values: np.ndarray, k: int) -> np.ndarray:
    """The sum of each subset of k values."""
    return np.fromiter(map(sum, itertools.combinations(values.tolist(), k)), float)


def _drawn(arm: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Of `DRAWN` random ways; those that swap nothing are left out."""
    rng, found = np.random.default_rng(0), []
    values = np.concatenate([arm, reference])
    rows = max(1, AT_ONCE // values.size)
    for start in range(0, DRAWN, rows):
        dealt = rng.random((min(rows, DRAWN - start), values.size)).argsort(axis=1)[:, : arm.size]
        swaps = (dealt >= arm.size).sum(axis=1)
        moved = arm.sum() - values[dealt].sum(axis=1)
        found.append(moved[swaps > 0] / swaps[swaps > 0])
    return np.concatenate(found)


@dataclass(frozen=True)
class UnpairedComparison(Comparison):
    """The comparison of two arms whose values are no pairs: `differences` is empty, `difference` that of the means."""

    sizes: tuple[int, int] = (0, 0)
    """Values of the arm and of its reference."""
    welch: tuple[float, float] = (math.nan, math.nan)
    """Welch's t interval of 95 %."""

    def values(self) -> dict[str, float]:
        """As of pairs; `low` and `high` are of Welch's interval, and there is no bootstrap interval."""
        low, high = self.welch
        values = {name: value for name, value in super().values().items() if name != "pairs"}
        return {**values, "values_arm": self.sizes[0], "values_reference": self.sizes[1], "low": low, "high": high}


def compare_unpaired(
    scores: Mapping[str, Sequence[float]],
    contrasts: Sequence[tuple[str, str]],
    margin: float | None = None,
    alpha: float = FAMILY_WISE,
) -> list[UnpairedComparison]:
    """The verdict on each contrast (arm, reference) from the values of each arm, one or more; higher is better.

    Equivalence within the margin is tested by two one-sided Welch tests. The contrasts are one family (see `holm`).
    """
    samples = [(np.array(scores[arm]), np.array(scores[reference])) for arm, reference in contrasts]
    tests = [permutations(*pair) for pair in samples]
    same = [_equivalence_p(*pair, margin) for pair in samples] if margin else []
    found = []
    for (arm, reference), test, claims in zip(
        samples, tests, adjust([test.p() for test in tests], same, alpha), strict=True
    ):
        difference = float(arm.mean() - reference.mean())
        word = verdict(np.array([difference]), claims.p_differ, claims.p_same, alpha)
        level = claims.level(word)
        one = UnpairedComparison((), difference, math.nan, claims.p_differ, word, level)
        low, high = welch_interval(arm, reference, 1 - 2 * level) if word == "equivalent" else test.interval(level)
        sizes, welch = (arm.size, reference.size), welch_interval(arm, reference)
        found.append(replace(one, low=low, high=high, sizes=sizes, welch=welch))
    return found


def welch_interval(arm: np.ndarray, reference: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Welch's t interval of the difference of two means; (NaN, NaN) where an arm has one value."""
    difference = float(arm.mean() - reference.mean())
    error, freedom = _welch(arm, reference)
    half = float(special.stdtrit(freedom, (1 + level) / 2)) * error if error else error
    return difference - half, difference + half


def _equivalence_p(arm: np.ndarray, reference: np.ndarray, margin: float) -> float:
    difference, (error, freedom) = abs(float(arm.mean() - reference.mean())), _welch(arm, reference)
    if math.isnan(error):
        return 1.0
    if error == 0:
        return 0.0 if difference < margin else 1.0
    return float(special.stdtr(freedom, (difference - margin) / error))


def _welch(arm: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Standard error of the difference of two means, and its degrees of freedom (Welch 1947)."""
    one, other = (mean_std(values)[1] ** 2 / values.size for values in (arm, reference))
    error = math.sqrt(one + other)
    if not error or math.isnan(error):
        return error, math.nan
    return error, (one + other) ** 2 / (one**2 / (arm.size - 1) + other**2 / (reference.size - 1))


def smallest_unpaired_p(n: int, other: int) -> float:
    """The smallest two-sided p that n values against `other` can reach."""
    ways = math.comb(n + other, n)
    return min(1.0, 2.0 / (ways if ways <= MAX_ENUMERATED else DRAWN + 1))


def values_needed(m: int, alpha: float = FAMILY_WISE) -> int:
    """The fewest values of each arm that can call one of m contrasts better or worse; 64 where none can."""
    return next((n for n in range(1, 64) if m * smallest_unpaired_p(n, n) <= alpha), 64)
