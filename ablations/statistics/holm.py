"""Holm's procedure: adjusted p of several tests, and the level at which each was tested."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

FAMILY_WISE = 0.05
"""Family-wise error rate: the probability that a table claims at least one difference where there is none."""


def holm(*claims: Sequence[float]) -> list[list[float]]:
    """Adjusted p, (claims, m), of the claims on each of m contrasts. A claim is accepted where its p is at most alpha.

    With one claim for each contrast this is Holm's procedure (1979). With two, that the arms differ and that they are
    equivalent, at most one of a contrast's null hypotheses is true: no difference implies equivalence, and a difference
    beyond the margin is a difference. So each p is multiplied by the number of contrasts that still have an unaccepted
    claim, the most null hypotheses that can be true at once (Shaffer 1986, procedure S1).
    """
    adjusted, worst = [[1.0] * len(p) for p in claims], 0.0
    for p, claim, contrast, left in _by_p(claims):
        adjusted[claim][contrast] = worst = max(worst, min(1.0, left * p))
    return adjusted


def holm_levels(*claims: Sequence[float], alpha: float = FAMILY_WISE) -> list[list[float]]:
    """The level, (claims, m), at which Holm's procedure tests each claim: alpha divided by the number of contrasts that
    have an unaccepted claim by then. A claim is accepted if and only if its p is at most its level.

    Claims that are not accepted share the level at which the procedure ends.
    """
    levels = [[math.nan] * len(p) for p in claims]
    ended = math.inf
    for p, claim, contrast, left in _by_p(claims):
        if ended == math.inf and min(1.0, left * p) > alpha:
            ended = alpha / left
        # Rounding in the division must not undo what the multiplication in `holm` has decided.
        levels[claim][contrast] = max(p, alpha / left) if ended == math.inf else min(ended, p * (1 - 1e-9))
    return levels


def _by_p(claims: Sequence[Sequence[float]]) -> Iterator[tuple[float, int, int, int]]:
    """(p, claim, contrast, contrasts that have a claim left), the smallest p first."""
    claims_left = [len(claims)] * len(claims[0])
    contrasts_left = len(claims_left)
    for p, claim, contrast in sorted((p, k, i) for k, of in enumerate(claims) for i, p in enumerate(of)):
        yield p, claim, contrast, contrasts_left
        claims_left[contrast] -= 1
        contrasts_left -= not claims_left[contrast]
