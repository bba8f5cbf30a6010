"""Power: the probability that n paired seeds detect a difference, or show equivalence, and the seeds this takes.

Paired differences are taken as normal; effects and margins are in units of their standard deviation. Every contrast of
a family of m is tested at alpha / m, the first level of Holm's procedure, so the power given is a lower bound.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from scipy import optimize, special

from ablations.statistics.holm import FAMILY_WISE

POWER = 0.8
"""The power that designs are planned for (Cohen 1988, section 2.4)."""
LARGEST_SAMPLE = 999
"""The largest number of seeds that is computed."""
CONFIDENCE = 0.8
"""Confidence level of the upper limit of a measured standard deviation. Sample sizes that are planned by the measured
value itself are too small more often than not (Browne 1995)."""


def sign_flip_power(n: int, effect: float, m: int = 1, alpha: float = FAMILY_WISE) -> float:
    """Power of the sign-flip test of n pairs for a difference of `effect` standard deviations.

    The test's p are multiples of 2 / 2**n, so its actual level is the largest multiple within alpha / m. Where that is
    at most three times the smallest p, the power is exact. Otherwise it is that of a t test at this level, which is too
    large by at most 0.025 (simulated in the tests) and closer the more pairs there are.
    """
    patterns = math.floor(alpha / m * 2.0 ** (n - 1) * (1 + 1e-12))
    if patterns < 1:
        return 0.0
    if patterns <= 3:
        return _few_patterns(n, effect, patterns) + _few_patterns(n, -effect, patterns)
    limits = -special.stdtrit(n - 1, patterns / 2.0**n) * _spreads(n)
    shift = abs(effect) * math.sqrt(n)
    return float((special.ndtr(shift - limits) + special.ndtr(-shift - limits)).mean())


def equivalence_power(n: int, margin: float, m: int = 1, alpha: float = FAMILY_WISE) -> float:
    """Power of two one-sided t tests of n pairs to show that equal arms are equivalent within `margin` standard
    deviations: the power given the measured deviation, averaged over its distribution (Phillips 1990)."""
    if n < 2:
        return 0.0
    room = margin * math.sqrt(n) + special.stdtrit(n - 1, alpha / m) * _spreads(n)
    return float(np.maximum(0.0, 2 * special.ndtr(room) - 1).mean())


def seeds_to_detect(difference: float, deviation: float, m: int = 1) -> int | None:
    """The fewest seeds that detect a difference with 80 % power; None above LARGEST_SAMPLE.

    `deviation` is the standard deviation of the paired differences, in the units of `difference`.
    """
    return _fewest(lambda n: sign_flip_power(n, difference / deviation, m))


def seeds_for_equivalence(margin: float, deviation: float, m: int = 1) -> int | None:
    """The fewest seeds that show equivalence of equal arms with 80 % power; None above LARGEST_SAMPLE."""
    return _fewest(lambda n: equivalence_power(n, margin / deviation, m))


def smallest_difference(n: int, m: int = 1) -> float | None:
    """The smallest difference, in standard deviations of the paired differences, that n seeds detect with 80 % power;
    None where no difference can be detected."""
    if sign_flip_power(n, 20.0, m) < POWER:
        return None
    return float(optimize.brentq(lambda effect: sign_flip_power(n, effect, m) - POWER, 0.0, 20.0))


def smallest_margin(n: int, m: int = 1) -> float | None:
    """The smallest margin, in standard deviations of the paired differences, within which n seeds show equivalence with
    80 % power; None for a single seed."""
    if n < 2:
        return None
    return float(optimize.brentq(lambda margin: equivalence_power(n, margin, m) - POWER, 0.0, 1e4))


def upper_deviation(deviation: float, n: int) -> float:
    """Upper one-sided confidence limit of a standard deviation that was measured on n pairs."""
    return float(deviation * math.sqrt((n - 1) / special.chdtri(n - 1, CONFIDENCE)))


def _few_patterns(n: int, effect: float, patterns: int) -> float:
    """Probability that the signs of n differences are among the `patterns` (1 to 3) with the largest sums: all are
    positive, all but the smallest in size, all but the second smallest."""
    chance = float(special.ndtr(effect)) ** n
    if patterns > 1:
        size = np.linspace(0.0, 10.0, 4001)  # of the negative difference
        larger = special.ndtr(effect - size)
        others = larger ** (n - 1)
        if patterns > 2:
            others += (n - 1) * (special.ndtr(effect) - larger) * larger ** (n - 2)
        density = np.exp(-((size + effect) ** 2) / 2) / math.sqrt(2 * math.pi)
        chance += float(np.trapezoid(n * density * others, size))
    return chance


@lru_cache(LARGEST_SAMPLE)
def _spreads(n: int) -> np.ndarray:
    """A thousand equally likely values of the standard deviation measured on n pairs, where the true one is 1."""
    return np.sqrt(special.chdtri(n - 1, (np.arange(1000) + 0.5) / 1000) / (n - 1))


def _fewest(power: Callable[[int], float]) -> int | None:
    counts = range(2, LARGEST_SAMPLE + 1)
    found = bisect_left(counts, POWER, key=power)
    return counts[found] if found < len(counts) else None
