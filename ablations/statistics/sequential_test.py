"""Looks: one contrast tested at several counts of seeds, its error spent over them.

A test that is read after every few seeds is many tests. Here the counts at which it is read are declared beforehand,
and by look k no more than alpha * sqrt(n_k / n_K) has been spent, n_k being the pairs of look k and K the last: the
power family of Kim and DeMets (1987), with an exponent that spends early, for six pairs of alike signs have p = 0.031
and a flatter start could never stop there. What discrete tests leave unspent is carried to the next look.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy import special

from ablations.statistics.paired import FAMILY_WISE, equivalence_p, smallest_p

CELLS = 256
"""Steps of the grid in a mean absolute difference. Differences are rounded to it, so that sums can be counted."""
LARGEST = 64 * CELLS
"""A difference beyond 64 times the mean of the first look counts as 64 times: the grid must end somewhere."""
EDGES = 100_000
"""Simulated studies at the edge of the margin."""


def shares(looks: Sequence[int]) -> np.ndarray:
    """The share (K,) of the error that may be spent by each look."""
    return np.sqrt(np.asarray(looks) / looks[-1])


def levels(m: int, alpha: float = FAMILY_WISE) -> np.ndarray:
    """The levels, falling, at which Holm's procedure may test one of m contrasts: alpha, alpha / 2, ..., alpha / m.

    All of them for a handful of contrasts, and two dozen for more: a p is rounded up to the next level.
    """
    steps = np.unique(np.geomspace(1, max(m, 1), 24).round())
    # Holm multiplies again, and the last bit must not lose what was rejected at exactly alpha / m.
    return alpha / steps * (1 - 1e-12)


def differ_p(blocks: Sequence[np.ndarray], looks: Sequence[int], m: int, alpha: float = FAMILY_WISE) -> list[float]:
    """After each look, the smallest of `levels` at which the sign-flip test has rejected by then, or 1.

    `blocks` are the paired differences that each look so far has added. Given their sizes, all signs are equally
    likely under the null hypothesis, so the chance to cross at this look and at none before is counted, not
    approximated, and with it the critical sum of each look; the guarantee holds for every distribution in which a
    difference and its negative are alike, at any number of pairs. These sequential p values go into Holm's procedure
    like others, whatever look each contrast stopped at (Liu and Anderson 2008; Maurer and Bretz 2013), where a level
    that is crossed implies all larger ones; with discrete tests that has to be enforced, and is.
    """
    rungs = levels(m, alpha)
    crossed = np.zeros(rungs.size, bool)
    # Probability of each sum -size..size without having crossed before: multiples of 2**-n, so exact in float64.
    alive = np.ones((rungs.size, 1))
    spent = np.zeros(rungs.size)
    total, found = 0, []
    for steps, share in zip(_on_grid(blocks), shares(looks), strict=False):
        for length in np.abs(steps):
            alive = _either_way(alive, int(length))
        total += int(steps.sum())
        size = alive.shape[1] // 2
        beyond = _tails(alive, size)  # (levels, size + 2): P(|sum| >= 0), ..., P(|sum| >= size + 1) = 0
        critical = (beyond > (rungs * share - spent)[:, None]).sum(axis=1)
        critical = np.maximum.accumulate(critical)  # a smaller level crosses nowhere that a larger one does not
        spent += np.take_along_axis(beyond, critical[:, None], axis=1)[:, 0]
        alive[np.abs(np.arange(-size, size + 1)) >= critical[:, None]] = 0.0
        crossed |= abs(total) >= critical
        found.append(float(rungs[crossed].min()) if crossed.any() else 1.0)
    return found


def same_p(blocks: Sequence[np.ndarray], looks: Sequence[int], margin: float) -> list[float]:
    """After each look, the sequential p that the mean difference lies within (-margin, margin).

    Two one-sided t tests at each look; the smallest p so far is held against the distribution of the smallest over all
    declared looks, for normal differences whose mean is the margin: their spread cancels, so it is known before a run.
    """
    own = [equivalence_p(np.concatenate(blocks[: k + 1]), margin) for k in range(len(blocks))]
    minima = _smallest_at_the_edge(tuple(looks))
    below = np.searchsorted(minima, np.minimum.accumulate(own), "right")
    return [float(p) for p in (1 + below) / (1 + minima.size)]


def first_look(looks: Sequence[int], m: int, alpha: float = FAMILY_WISE) -> int | None:
    """The first look, as a count of seeds, that can call one of m contrasts better or worse; None where none can."""
    able = [n for n, share in zip(looks, shares(looks), strict=True) if smallest_p(n) <= alpha / m * share]
    return able[0] if able else None


def _on_grid(blocks: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Differences as whole steps of a grid that the first look with any difference fixes, signs aside: a later look
    must not move the critical sums of an earlier one."""
    for k in range(len(blocks)):
        sizes = np.abs(np.concatenate(blocks[: k + 1]))
        if sizes.any():
            unit = sizes.mean() / CELLS
            return [np.rint(np.clip(block / unit, -LARGEST, LARGEST)).astype(int) for block in blocks]
    return [np.zeros(len(block), int) for block in blocks]


def _either_way(alive: np.ndarray, length: int) -> np.ndarray:
    """Probabilities of the sums -size..size, a row a level, after one more step up or down, on a wider grid."""
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
def _smallest_at_the_edge(looks: tuple[int, ...]) -> np.ndarray:
    """Sorted (EDGES,): the smallest one-sided p over all looks, of normal differences whose mean is the margin."""
    below = np.random.default_rng(0).standard_normal((EDGES, looks[-1]))  # margin - difference, in deviations
    minima = np.ones(EDGES)
    for n in looks:
        seen = below[:, :n]
        t = seen.mean(axis=1) / (seen.std(axis=1, ddof=1) / np.sqrt(n))
        minima = np.minimum(minima, special.stdtr(n - 1, -t))
    return np.sort(minima)
