"""Statistics of paired seeds: differences, intervals, exact sign-flip test, Holm, equivalence, verdicts.

Seeds are pairs: arms of one seed share initialisation, order and augmentation, so the difference of a seed is the
observation. n is a number of seeds, m a number of contrasts. Two claims are tested: that two arms differ (sign-flip
test), and that they differ by less than a margin (two one-sided t tests). Both are in one family (see `holm`). The
interval of a contrast is the inversion of the test that decides it, at the level at which Holm's procedure applies it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from scipy import special

from ablations.statistics.holm import FAMILY_WISE, holm, holm_levels
from ablations.statistics.sign_flip import sign_flip_interval, sign_flip_p

MIN_BOOTSTRAP_PAIRS = 6
"""The fewest pairs with a bootstrap interval."""

Verdict = Literal["better", "worse", "equivalent", "undecided"]
SeedName = TypeVar("SeedName", int, str)
"""A study's seeds are numbers; those of other people's results may be words, such as the names of folds."""


@dataclass(frozen=True)
class Comparison:
    """The paired comparison of two arms over the seeds that both have. Differences are in points of the metric."""

    differences: tuple[float, ...]
    """One for each pair, in the order of the seeds."""
    difference: float
    deviation: float
    """Standard deviation of the paired differences; NaN below two pairs."""
    p: float
    """p of the two-sided sign-flip test, adjusted by Holm over the study's family of tests."""
    verdict: Verdict
    level: float = math.nan
    """The level at which Holm's procedure tested the contrast; NaN while its seeds have not ended."""
    low: float = math.nan
    high: float = math.nan
    """Limits of the interval that inverts the test of the verdict at `level`: the limit 0 lies outside if and only if
    the verdict is `better` or `worse`. Infinite where n pairs cannot reach the level."""

    @property
    def n(self) -> int:
        """The number of pairs."""
        return len(self.differences)

    def values(self) -> dict[str, float]:
        """The numbers by the names they have in the row of a table; `low` and `high` are of Student's t interval."""
        differences = np.array(self.differences)
        t_low, t_high = interval(differences)
        low, high = bootstrap_interval(differences)
        return {
            "pairs": self.n,
            "difference": self.difference,
            "deviation": self.deviation,
            "low": t_low,
            "high": t_high,
            "bootstrap_low": low,
            "bootstrap_high": high,
            "p": self.p,
            "level": self.level,
            "interval_low": self.low,
            "interval_high": self.high,
        }


def paired(arm: Mapping[SeedName, float], reference: Mapping[SeedName, float]) -> np.ndarray:
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
    scores: Mapping[str, Mapping[SeedName, float]],
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
    share = max(1.0, tests / max(1, len(samples)))
    differ = [min(1.0, share * sign_flip_p(d)) if done else 1.0 for d, done in both]
    same = [min(1.0, share * equivalence_p(d, margin)) if done else 1.0 for d, done in both] if margin else []
    found = []
    for (d, done), claims in zip(both, adjust(differ, same, alpha), strict=True):
        word = verdict(d, claims.p_differ, claims.p_same, alpha)
        one = comparison(d, claims.p_differ, word)
        found.append(with_interval(one, claims.level(word) / share) if done else one)
    return found


class Adjusted(NamedTuple):
    """The claims on one contrast after Holm: their adjusted p, and the levels at which they were tested."""

    p_differ: float
    p_same: float
    level_differ: float
    level_same: float

    def level(self, word: Verdict) -> float:
        """The level of the claim that decides the verdict."""
        return self.level_same if word == "equivalent" else self.level_differ


def adjust(differ: Sequence[float], same: Sequence[float], alpha: float = FAMILY_WISE) -> list[Adjusted]:
    """Of m contrasts, from the p of difference and of equivalence; without a margin `same` is empty and its p are 1."""
    claims = (differ, same) if same else (differ,)
    none = [1.0] * len(differ)
    p, levels = ([*of, none][:2] for of in (holm(*claims), holm_levels(*claims, alpha=alpha)))
    return [Adjusted(*each) for each in zip(*p, *levels, strict=True)]


def comparison(differences: np.ndarray, p: float, word: Verdict) -> Comparison:
    """The comparison of paired differences (n,), without an interval: their mean, an adjusted p and a verdict."""
    mean, deviation = mean_std(differences)
    return Comparison(tuple(differences.tolist()), mean, deviation, p, word)


def with_interval(found: Comparison, level: float) -> Comparison:
    """The comparison with the interval that inverts the test of its verdict: the sign-flip test at `level`; for
    `equivalent` two one-sided t tests at `level`, whose interval is Student's of the confidence 1 - 2 * level."""
    differences = np.array(found.differences)
    if found.verdict == "equivalent":
        low, high = interval(differences, 1 - 2 * level)
    else:
        low, high = sign_flip_interval(differences, level)
    return replace(found, level=level, low=low, high=high)


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
