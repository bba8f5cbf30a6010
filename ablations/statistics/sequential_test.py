"""Group-sequential test: one contrast tested at several numbers of seeds (looks), with alpha spent over them.

Testing repeatedly at the full level would raise the error rate. Here the looks are declared beforehand, and the alpha
spent by look k is at most alpha * sqrt(n_k / n_K), where n_k are the pairs of look k and K is the last look: the power
family of Kim and DeMets (1987). Its exponent of 1/2 spends early: six pairs have a smallest p of 0.031, and with a
larger exponent no look at six could reach it. Alpha that a discrete test leaves unspent is carried to the next look.
Intervals invert these tests, so they hold whatever look a contrast stops at (repeated confidence intervals, Jennison
and Turnbull 1989).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy import special

from ablations.statistics.holm import FAMILY_WISE
from ablations.statistics.inversion import lower_limit
from ablations.statistics.paired import equivalence_p, interval, smallest_p

GRID_STEPS = 256
"""Grid steps in a mean absolute difference. Differences are rounded to the grid, so that their sums can be counted."""
LARGEST = 64 * GRID_STEPS
"""Differences are cut off at 64 times the mean absolute difference of the first look, to bound the grid."""
SIMULATIONS = 100_000
"""Simulated studies whose true difference equals the margin."""


def shares(looks: Sequence[int]) -> np.ndarray:
    """The share (K,) of alpha that may be spent by each look."""
    return np.sqrt(np.asarray(looks) / looks[-1])


def levels(m: int, alpha: float = FAMILY_WISE) -> np.ndarray:
    """The levels, falling, at which Holm's procedure may test one of m contrasts: alpha, alpha / 2, ..., alpha / m.

    At most 24 of them: with more contrasts a p is rounded up to the next level.
    """
    steps = np.unique(np.geomspace(1, max(m, 1), 24).round())
    # Slightly below alpha / m, so that rounding in Holm's multiplication cannot undo a rejection at exactly that level.
    return alpha / steps * (1 - 1e-12)


def differ_p(blocks: Sequence[np.ndarray], looks: Sequence[int], m: int, alpha: float = FAMILY_WISE) -> list[float]:
    """After each look, the smallest of `levels` at which the sign-flip test has rejected by then, or 1.

    `blocks` are the paired differences that each look so far has added. Given the sizes of the differences, all signs
    are equally likely under the null hypothesis, so the probability of a first rejection at each look, and with it the
    look's critical sum, is computed exactly. The level holds for every distribution that is symmetric about zero and
    for any number of pairs. Holm's procedure takes these sequential p values like others, whatever look each contrast
    stopped at (Liu and Anderson 2008; Maurer and Bretz 2013). It needs a rejection at one level to imply a rejection at
    all larger ones, which is enforced below, as discrete tests do not ensure it.
    """
    all_levels = levels(m, alpha)
    rejected = np.logical_or.accumulate(_rejections(blocks, looks, all_levels))
    return [float(all_levels[row].min()) if row.any() else 1.0 for row in rejected]


def _rejections(blocks: Sequence[np.ndarray], looks: Sequence[int], all_levels: np.ndarray) -> np.ndarray:
    """Whether the sign-flip test rejects at each look so far, at each level: (looks, levels), the levels falling."""
    # Probability of each sum -size..size without a rejection before: multiples of 2**-n, so exact in float64.
    alive = np.ones((all_levels.size, 1))
    spent = np.zeros(all_levels.size)
    total, found = 0, []
    for steps, share in zip(_on_grid(blocks), shares(looks), strict=False):
        for length in np.abs(steps):
            alive = _add_difference(alive, int(length))
        total += int(steps.sum())
        size = alive.shape[1] // 2
        beyond = _tails(alive, size)  # (levels, size + 2): P(|sum| >= 0), ..., P(|sum| >= size + 1) = 0
        critical = (beyond > (all_levels * share - spent)[:, None]).sum(axis=1)
        critical = np.maximum.accumulate(critical)  # a smaller level rejects only where all larger ones do
        spent += np.take_along_axis(beyond, critical[:, None], axis=1)[:, 0]
        alive[np.abs(np.arange(-size, size + 1)) >= critical[:, None]] = 0.0
        found.append(abs(total) >= critical)
    return np.array(found)


def differ_interval(
    blocks: Sequence[np.ndarray], looks: Sequence[int], m: int, level: float, alpha: float = FAMILY_WISE
) -> tuple[float, float]:
    """The mean differences that the test of `differ_p` has not rejected at `level` by the last of these looks.

    Exact to a thousandth of the standard deviation of the differences; infinite where no look could reject.
    """
    all_levels = levels(m, alpha)
    all_levels = all_levels[: int(np.argmax(all_levels <= level)) + 1]
    low, high = -math.inf, math.inf
    for k in range(len(blocks)):
        seen = list(blocks[: k + 1])
        low = max(low, _lower_limit(seen, looks, all_levels))
        high = min(high, -_lower_limit([-block for block in seen], looks, all_levels))
    return min(low, high), max(low, high)


def _lower_limit(blocks: Sequence[np.ndarray], looks: Sequence[int], all_levels: np.ndarray) -> float:
    """The smallest mean difference that the last of these looks does not reject at the last level."""

    def rejects(value: float) -> bool:
        return bool(_rejections([block - value for block in blocks], looks, all_levels)[-1, -1])

    d = np.concatenate(blocks)
    return lower_limit(rejects, float(d.mean()), d) if d.size else -math.inf


def same_p(blocks: Sequence[np.ndarray], looks: Sequence[int], margin: float) -> list[float]:
    """After each look, the sequential p of equivalence: that the mean difference lies within (-margin, margin).

    Two one-sided t tests at each look. The smallest p so far is compared with the distribution of the smallest p over
    all declared looks, for normal differences whose mean equals the margin; this does not depend on their variance.
    """
    own = [equivalence_p(np.concatenate(blocks[: k + 1]), margin) for k in range(len(blocks))]
    minima = _smallest_p_at_margin(tuple(looks))
    below = np.searchsorted(minima, np.minimum.accumulate(own), "right")
    return [float(p) for p in (1 + below) / (1 + minima.size)]


def same_interval(blocks: Sequence[np.ndarray], looks: Sequence[int], level: float) -> tuple[float, float]:
    """The interval that inverts the test of `same_p` at `level`: it lies within the margin where equivalence is shown.

    Student's t interval at each of these looks, at the confidence at which all looks together miss the limit on either
    side with the probability `level`; then what these intervals have in common.
    """
    minima = _smallest_p_at_margin(tuple(looks))
    p = float(minima[max(0, math.floor(level * (1 + minima.size)) - 1)])
    found = [interval(np.concatenate(blocks[: k + 1]), 1 - 2 * p) for k in range(len(blocks))]
    return max(low for low, _ in found), min(high for _, high in found)


def first_look(looks: Sequence[int], m: int, alpha: float = FAMILY_WISE) -> int | None:
    """The first look, as a count of seeds, that can call one of m contrasts better or worse; None where none can."""
    able = [n for n, share in zip(looks, shares(looks), strict=True) if smallest_p(n) <= alpha / m * share]
    return able[0] if able else None


def _on_grid(blocks: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Differences as integer numbers of grid steps. The first look with a nonzero difference sets the step, from sizes
    alone, so that later looks do not change the critical sums of earlier ones."""
    for k in range(len(blocks)):
        sizes = np.abs(np.concatenate(blocks[: k + 1]))
        if sizes.any():
            unit = sizes.mean() / GRID_STEPS
            return [np.rint(np.clip(block / unit, -LARGEST, LARGEST)).astype(int) for block in blocks]
    return [np.zeros(len(block), int) for block in blocks]


def _add_difference(alive: np.ndarray, length: int) -> np.ndarray:
    """Probabilities of the sums, one row for each level, after one more difference of +length or -length."""
    wider = np.zeros((alive.shape[0], alive.shape[1] + 2 * length))
    wider[:, : alive.shape[1]] += alive
    wider[:, 2 * length :] += alive
    return wider / 2


def _tails(alive: np.ndarray, size: int) -> np.ndarray:
    """P(|sum| >= 0..size + 1) of each row of probabilities of the sums -size..size."""
    folded = alive[:, size:].copy()
    folded[:, 1:] += alive[:, :size][:, ::-1]
    return np.concatenate([folded[:, ::-1].cumsum(axis=1)[:, ::-1], np.zeros((len(alive), 1))], axis=1)


@lru_cache
def _smallest_p_at_margin(looks: tuple[int, ...]) -> np.ndarray:
    """Sorted (SIMULATIONS,): the smallest one-sided p over all looks, of normal differences with the margin as mean."""
    # margin - difference, in standard deviations
    below = np.random.default_rng(0).standard_normal((SIMULATIONS, looks[-1]))
    minima = np.ones(SIMULATIONS)
    for n in looks:
        seen = below[:, :n]
        t = seen.mean(axis=1) / (seen.std(axis=1, ddof=1) / np.sqrt(n))
        minima = np.minimum(minima, special.stdtr(n - 1, -t))
    return np.sort(minima)
