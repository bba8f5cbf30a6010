"""Statistics of paired seeds: differences, intervals, exact sign-flip test, Holm, equivalence, verdicts.

Seeds are pairs: arms of one seed share initialisation, order and augmentation, so the difference of a seed is the
observation. n is a number of seeds, m a number of contrasts. Two claims are tested: that two arms differ (sign-flip
test), and that they differ by less than a margin (two one-sided t tests). Both are in one family (see `holm`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

FAMILY_WISE = 0.05
"""Family-wise error rate: the probability that a table claims at least one difference where there is none."""

BLOCK = 1 << 14
"""Sums that are looked up at once: their places lie close together, in a part of the array that fits into a cache."""

MIN_BOOTSTRAP_PAIRS = 6
"""The fewest pairs with a bootstrap interval."""

Verdict = Literal["better", "worse", "equivalent", "undecided"]


@dataclass(frozen=True)
class Comparison:
    """The paired comparison of two arms over the seeds that both have. Differences are in points of the metric."""

    differences: tuple[float, ...]
    """One for each pair, in the order of the seeds."""
    difference: float
    deviation: float
    """Standard deviation of the paired differences; NaN below two pairs."""
    low: float
    high: float
    """Limits of Student's t interval."""
    p: float
    """p of the two-sided sign-flip test, adjusted by Holm over the study's family of tests."""
    verdict: Verdict

    @property
    def n(self) -> int:
        """The number of pairs."""
        return len(self.differences)

    def values(self) -> dict[str, float]:
        """The numbers by the names they have in the row of a table."""
        low, high = bootstrap_interval(np.array(self.differences))
        return {
            "pairs": self.n,
            "difference": self.difference,
            "deviation": self.deviation,
            "low": self.low,
            "high": self.high,
            "bootstrap_low": low,
            "bootstrap_high": high,
            "p": self.p,
        }


def paired(arm: Mapping[int, float], reference: Mapping[int, float]) -> np.ndarray:
    """Differences (n,) arm - reference over the seeds both have, in the order of the seeds."""
    return np.array([arm[seed] - reference[seed] for seed in sorted(arm.keys() & reference.keys())])


def mean_std(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Mean and sample standard deviation (n - 1); NaN where there are too few values."""
    x = np.asarray(values, dtype=float)
    return (float(x.mean()) if x.size else math.nan, float(x.std(ddof=1)) if x.size > 1 else math.nan)


def interval(differences: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Student's t interval of the mean difference; (NaN, NaN) below two seeds."""
    mean, std = mean_std(differences)
    n = differences.size
    half = float(special.stdtrit(n - 1, (1 + level) / 2)) * std / math.sqrt(n) if n > 1 else math.nan
    return mean - half, mean + half


def bootstrap_interval(differences: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap interval of the mean difference (Efron 1987), with a fixed seed.

    (NaN, NaN) below six pairs, as so few have too few distinct resamples.
    """
    d = np.asarray(differences, dtype=float)
    if d.size < MIN_BOOTSTRAP_PAIRS:
        return math.nan, math.nan
    if np.ptp(d) == 0:
        return float(d[0]), float(d[0])
    from scipy.stats import bootstrap  # imported here: it takes half a second, and most commands show no interval

    found = bootstrap((d,), np.mean, confidence_level=level, method="BCa", rng=np.random.default_rng(0))
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def prediction_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Student's t prediction interval for one more run like these n; (NaN, NaN) below two values."""
    mean, std = mean_std(values)
    n = len(values)
    half = float(special.stdtrit(n - 1, (1 + level) / 2)) * std * math.sqrt(1 + 1 / n) if n > 1 else math.nan
    return mean - half, mean + half


def sign_flip_p(differences: np.ndarray) -> float:
    """Exact two-sided p of the mean of n paired differences, (n,), under all 2**n assignments of their signs.

    Exact up to n = 40: the signed sums of each half are enumerated, and those of one half are counted in the sorted
    other (Horowitz and Sahni 1974), so 2**n costs 2**(n/2).
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
    """All 2**n signed sums, sorted. Each step merges two sorted halves, which a stable sort does in linear time."""
    sums = np.zeros(2**d.size)
    for count, value in zip(2 ** np.arange(d.size), np.abs(d), strict=True):
        np.add(sums[:count], value, out=sums[count : 2 * count])
        sums[:count] -= value
        sums[: 2 * count].sort(kind="stable")
    return sums


def holm(*claims: Sequence[float]) -> list[list[float]]:
    """Adjusted p, (claims, m), of the claims on each of m contrasts. A claim is accepted where its p is at most alpha.

    With one claim for each contrast this is Holm's procedure (1979). With two, that the arms differ and that they are
    equivalent, at most one of a contrast's null hypotheses is true: no difference implies equivalence, and a difference
    beyond the margin is a difference. So each p is multiplied by the number of contrasts that still have an unaccepted
    claim, the most null hypotheses that can be true at once (Shaffer 1986, procedure S1).
    """
    adjusted = [[1.0] * len(p) for p in claims]
    claims_left = [len(claims)] * len(claims[0])
    contrasts_left, worst = len(claims_left), 0.0
    for p, claim, contrast in sorted((p, k, i) for k, of in enumerate(claims) for i, p in enumerate(of)):
        adjusted[claim][contrast] = worst = max(worst, min(1.0, contrasts_left * p))
        claims_left[contrast] -= 1
        contrasts_left -= not claims_left[contrast]
    return adjusted


def equivalence_p(differences: np.ndarray, margin: float) -> float:
    """p of two one-sided t tests that the mean difference lies within (-margin, margin) (Schuirmann 1987)."""
    mean, std = mean_std(differences)
    n = differences.size
    if n < 2:
        return 1.0
    if std == 0:
        return 0.0 if abs(mean) < margin else 1.0
    return float(special.stdtr(n - 1, (abs(mean) - margin) / (std / math.sqrt(n))))


def compare(
    scores: Mapping[str, Mapping[int, float]],
    contrasts: Sequence[tuple[str, str]],
    margin: float | None = None,
    pending: Collection[tuple[str, str]] = (),
    alpha: float = FAMILY_WISE,
    tests: int = 0,
) -> list[Comparison]:
    """The verdict on each contrast (arm, reference), from scores by arm and seed; higher is better.

    The family of tests is all contrasts, those without data included, and other tests of the study up to `tests`.
    `pending` contrasts have seeds that have not ended and stay undecided: testing after every seed would raise the
    error rate above alpha.
    """
    pairs = [paired(scores.get(arm, {}), scores.get(reference, {})) for arm, reference in contrasts]
    return compare_samples(pairs, [pair not in pending for pair in contrasts], margin, alpha, tests)


def compare_samples(
    samples: Sequence[np.ndarray],
    ended: Sequence[bool],
    margin: float | None = None,
    alpha: float = FAMILY_WISE,
    tests: int = 0,
) -> list[Comparison]:
    """The verdict on each sample of paired differences, (n,) each. Samples are one family of tests; those that have not
    `ended` stay undecided. Where the study has more `tests` than these, the family gets its share of alpha."""
    both = list(zip(samples, ended, strict=True))
    differ = [sign_flip_p(d) if done else 1.0 for d, done in both]
    same = [equivalence_p(d, margin) if done else 1.0 for d, done in both] if margin else []
    share = max(1.0, tests / max(1, len(samples)))
    adjusted = [[min(1.0, share * p) for p in claim] for claim in adjust(differ, same)]
    return [
        comparison(d, p_differ, verdict(d, p_differ, p_same, alpha))
        for d, p_differ, p_same in zip(samples, *adjusted, strict=True)
    ]


def adjust(differ: Sequence[float], same: Sequence[float]) -> tuple[list[float], list[float]]:
    """Adjusted p of difference and of equivalence for m contrasts; without a margin `same` is empty and its p are 1."""
    adjusted = holm(differ, same) if same else [*holm(differ), [1.0] * len(differ)]
    return adjusted[0], adjusted[1]


def comparison(differences: np.ndarray, p: float, word: Verdict) -> Comparison:
    """The comparison of paired differences (n,): their mean and interval, with an adjusted p and a verdict."""
    low, high = interval(differences)
    mean, deviation = mean_std(differences)
    return Comparison(tuple(differences.tolist()), mean, deviation, low, high, p, word)


def verdict(differences: np.ndarray, p_differ: float, p_same: float, alpha: float = FAMILY_WISE) -> Verdict:
    """The verdict for adjusted p values. Equivalence comes before a difference: the study's margin calls it too small
    to matter."""
    if p_same <= alpha:
        return "equivalent"
    if p_differ <= alpha:
        return "better" if differences.mean() > 0 else "worse"
    return "undecided"


def smallest_p(n: int) -> float:
    """The smallest two-sided p that n pairs can reach, where all differences have the same sign."""
    return min(1.0, 2.0 / 2**n)


def smallest_adjusted_p(n: int, m: int) -> float:
    """The smallest p that n seeds can reach in a family of m contrasts, after Holm."""
    return min(1.0, m * smallest_p(n))


def can_decide(n: int, m: int, alpha: float = FAMILY_WISE) -> bool:
    """Whether n seeds can ever call one of m contrasts better or worse."""
    return smallest_adjusted_p(n, m) <= alpha


def seeds_needed(m: int, alpha: float = FAMILY_WISE) -> int:
    """The fewest seeds that can call one of m contrasts better or worse."""
    return next(n for n in range(1, 64) if can_decide(n, m, alpha))


def counted(count: int, what: str) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{count} {what}{'' if count == 1 else 's'}"
