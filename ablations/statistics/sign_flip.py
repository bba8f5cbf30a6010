"""The exact sign-flip test of paired differences, and the interval that inverts it."""

from __future__ import annotations

import functools
import math

import numpy as np
from scipy import optimize, special

BLOCK = 1 << 14
"""Sums that are looked up at once: their places lie close together, in a part of the array that fits into a cache."""

MAX_COUNTED = 40
"""Up to so many pairs, p is exact: 2**(n/2) sums are enumerated."""

MAX_ENUMERATED = 20
"""Up to so many pairs, all 2**n subsets are enumerated to find the limits of an interval."""

GRID_STEPS = 1024
"""With more pairs, differences are rounded to this part of their mean size: above `MAX_ENUMERATED` to find the limits
of an interval, above `MAX_COUNTED` for p too."""


def sign_flip_p(differences: np.ndarray) -> float:
    """Exact two-sided p of the mean of n paired differences, (n,), under all 2**n assignments of their signs.

    Exact up to `MAX_COUNTED`: the signed sums of each half are enumerated, and those of one half are counted in the
    sorted other (Horowitz and Sahni 1974), so 2**n costs 2**(n/2). Of more pairs, all assignments are counted too, with
    the differences rounded to a `GRID_STEPS`th of their mean size.
    """
    return _sign_flip_p(np.asarray(differences, dtype=float).tobytes())


@functools.lru_cache(maxsize=4096)
def _sign_flip_p(differences: bytes) -> float:
    """Of float64 numbers. A table asks for one sample more than once: as a contrast, and as an effect."""
    d = np.frombuffer(differences)
    if not d.size:
        return 1.0
    # Sums that are equal in theory differ by rounding errors; the tolerance counts them as ties.
    extreme = abs(d.sum()) - 1e-9 * np.abs(d).sum()
    if extreme <= 0:
        return 1.0
    if d.size > MAX_COUNTED:
        return _sign_flip_p_on_grid(d)
    left, right = _signed_sums(d[: d.size // 2]), _signed_sums(d[d.size // 2 :])
    # Two-sided: each assignment has an opposite with the negative sum.
    return min(1.0, 2.0 * _pairs_that_reach(extreme, left, right) / 2.0**d.size)


def _pairs_that_reach(total: float, left: np.ndarray, right: np.ndarray) -> int:
    """The number of pairs, one of each sorted array, whose sum is at least `total`."""
    needed = (total - right)[::-1]
    needed = needed[: np.searchsorted(needed, left[-1], "right")]
    found = 0
    for start in range(0, needed.size, BLOCK):
        block = needed[start : start + BLOCK]
        low, high = np.searchsorted(left, block[[0, -1]])
        found += block.size * (left.size - int(low)) - int(np.searchsorted(left[low:high], block).sum())
    return found


def _signed_sums(d: np.ndarray) -> np.ndarray:
    """All 2**n signed sums, sorted."""
    sums = np.zeros(2**d.size)
    for count, value in zip(2 ** np.arange(d.size), np.abs(d), strict=True):
        np.add(sums[:count], value, out=sums[count : 2 * count])
        sums[:count] -= value
    sums.sort()
    return sums


def sign_flip_interval(differences: np.ndarray, level: float) -> tuple[float, float]:
    """The values of the mean difference that the sign-flip test of n pairs, (n,), does not reject at `level`.

    It rejects a value v below the mean where too few subsets of the differences have a mean of at most v, so the limits
    are order statistics of the 2**n - 1 means of subsets (Hartigan 1969). (-inf, inf) where n pairs cannot reach the
    level. Above `MAX_ENUMERATED` pairs, a limit is exact to a thousandth of the standard error of the mean.
    """
    d = np.asarray(differences, dtype=float)
    extreme = math.floor(level * 2.0 ** (d.size - 1) * (1 + 1e-12)) if d.size else 0
    if extreme < 1:
        return -math.inf, math.inf
    if np.ptp(d) == 0:
        return float(d[0]), float(d[0])
    if d.size <= MAX_ENUMERATED:
        means = np.partition(_subset_means(d), (extreme - 1, -extreme))
        return float(means[extreme - 1]), float(means[-extreme])
    return _lower_limit(d, level), -_lower_limit(-d, level)


def _subset_means(d: np.ndarray) -> np.ndarray:
    """The means of all 2**n - 1 subsets of one element or more. What `sign_flip_p` counts as a tie with 0 is 0."""
    sums, counts = np.zeros(2**d.size), np.zeros(2**d.size)
    for start, value in zip(2 ** np.arange(d.size), d, strict=True):
        sums[start : 2 * start] = sums[:start] + value
        counts[start : 2 * start] = counts[:start] + 1
    sums[np.abs(sums) <= 0.5e-9 * np.abs(d).sum()] = 0.0
    return sums[1:] / counts[1:]


def _lower_limit(d: np.ndarray, level: float) -> float:
    """The lower limit of the sign-flip interval, by root finding. On the scale of normal quantiles p is nearly linear.

    p is counted on a grid, but at 0 exactly, so that the limit is on the side of 0 that the test's decision implies.
    """
    mean, error = float(d.mean()), float(d.std()) / math.sqrt(d.size)

    @functools.cache
    def above_level(value: float) -> float:
        return float(special.ndtri(_sign_flip_p_on_grid(d - value) / 2) - special.ndtri(level / 2))

    # If the sums were normal, the limit v would have (mean - v)**2 = z**2 * (variance + (mean - v)**2) / n.
    z = -float(special.ndtri(level / 2))
    near = mean - z * float(d.std()) / math.sqrt(max(d.size - z * z, 1.0))
    ends = near - error / 8, near + error
    if not above_level(ends[0]) < 0 < above_level(ends[1]):
        ends = float(d.min()), mean
    # Where many differences are equal, even the smallest may not be rejected; all values below it are.
    rejected = above_level(ends[0]) < 0
    limit = float(optimize.brentq(above_level, *ends, xtol=5e-4 * error)) if rejected else ends[0]
    if mean <= 0:
        return limit
    return max(limit, 1e-4 * error) if sign_flip_p(d) <= level else min(limit, 0.0)


def _sign_flip_p_on_grid(d: np.ndarray) -> float:
    """`sign_flip_p` of differences rounded to a grid, whose sums are counted: n**2 * GRID_STEPS operations."""
    steps = np.rint(d * (GRID_STEPS / np.abs(d).mean())).astype(int)
    chances = signed_sum_chances(np.abs(steps))
    size = chances.size - 1
    return min(1.0, 2.0 * float(chances[(size + abs(int(steps.sum()))) // 2 :].sum()))


def signed_sum_chances(lengths: np.ndarray) -> np.ndarray:
    """The probabilities of the sums -size, -size + 2, ..., size of whole numbers (n,) whose signs are random; `size` is
    the sum of the numbers."""
    chances = np.ones(1)
    for length in lengths:
        wider = np.zeros(chances.size + length)
        wider[: chances.size] += chances
        wider[length:] += chances
        chances = wider / 2
    return chances
