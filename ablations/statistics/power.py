"""Power: how likely n paired seeds are to see a difference, or to exclude one, and how many seeds that takes.

For normal differences with a standard deviation; effects and margins are in units of it. Every contrast of a family of
m is taken at its strictest level, alpha / m, where Holm's procedure starts, so a contrast among easier ones has more.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from scipy import optimize, special

from ablations.statistics.paired import FAMILY_WISE

POWER = 0.8
"""The chance to decide that a design is asked for, as Cohen (1988, section 2.4) proposes it."""
MOST_SEEDS = 999
"""More than this is told as such."""
CONFIDENCE = 0.8
"""Of the upper limit of a standard deviation that was measured on few pairs: sample sizes planned by the measured one
are too small more often than not (Browne 1995)."""


def sign_flip_power(n: int, effect: float, m: int = 1, alpha: float = FAMILY_WISE) -> float:
    """Chance that n pairs call a difference of `effect` standard deviations better or worse.

    The test's p are multiples of 2 / 2**n, so its level is the largest of them within alpha / m. Where that is one to
    three times the smallest p, the chance is exact. Elsewhere it is that of a t test at this level, which is at most
    0.025 more (simulated in the tests), and the closer the more pairs.
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
    """Chance that n pairs of arms that do not differ are called equivalent within `margin` standard deviations.

    Two one-sided t tests, as Phillips (1990) has it: the chance given the measured deviation, averaged over that.
    """
    if n < 2:
        return 0.0
    room = margin * math.sqrt(n) + special.stdtrit(n - 1, alpha / m) * _spreads(n)
    return float(np.maximum(0.0, 2 * special.ndtr(room) - 1).mean())


def seeds_to_see(difference: float, deviation: float, m: int = 1) -> int | None:
    """The fewest seeds that call a difference better or worse with 80 % power; None above MOST_SEEDS.

    `deviation` is the standard deviation of the paired differences, in the units of `difference`.
    """
    return _fewest(lambda n: sign_flip_power(n, difference / deviation, m))


def seeds_to_exclude(margin: float, deviation: float, m: int = 1) -> int | None:
    """The fewest seeds that call arms without a difference equivalent with 80 % power; None above MOST_SEEDS."""
    return _fewest(lambda n: equivalence_power(n, margin / deviation, m))


def detectable(n: int, m: int = 1) -> float | None:
    """The difference, in standard deviations of differences, that n seeds see with 80 % power; None where they see
    none, however large."""
    if sign_flip_power(n, 20.0, m) < POWER:
        return None
    return float(optimize.brentq(lambda effect: sign_flip_power(n, effect, m) - POWER, 0.0, 20.0))


def excludable(n: int, m: int = 1) -> float | None:
    """The margin, in standard deviations of differences, outside of which n seeds exclude a difference with 80 % power;
    None for a single seed."""
    if n < 2:
        return None
    return float(optimize.brentq(lambda margin: equivalence_power(n, margin, m) - POWER, 0.0, 1e4))


def upper_deviation(deviation: float, n: int) -> float:
    """The upper one-sided confidence limit of a standard deviation that was measured on n pairs."""
    return float(deviation * math.sqrt((n - 1) / special.chdtri(n - 1, CONFIDENCE)))


def _few_patterns(n: int, effect: float, patterns: int) -> float:
    """Chance that n differences are all positive, or, with more patterns, all but the smallest or all but the second
    smallest in size: the one to three largest sums under all signs."""
    chance = float(special.ndtr(effect)) ** n
    if patterns > 1:
        size = np.linspace(0.0, 10.0, 4001)  # of the negative one
        larger = special.ndtr(effect - size)
        others = larger ** (n - 1)
        if patterns > 2:
            others += (n - 1) * (special.ndtr(effect) - larger) * larger ** (n - 2)
        density = np.exp(-((size + effect) ** 2) / 2) / math.sqrt(2 * math.pi)
        chance += float(np.trapezoid(n * density * others, size))
    return chance


@lru_cache(MOST_SEEDS)
def _spreads(n: int) -> np.ndarray:
    """A thousand equally likely values of the standard deviation that n pairs measure, where it is 1."""
    return np.sqrt(special.chdtri(n - 1, (np.arange(1000) + 0.5) / 1000) / (n - 1))


def _fewest(power: Callable[[int], float]) -> int | None:
    counts = range(2, MOST_SEEDS + 1)
    found = bisect_left(counts, POWER, key=power)
    return counts[found] if found < len(counts) else None
