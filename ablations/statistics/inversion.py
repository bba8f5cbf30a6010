"""Inversion: the limit of the interval of a mean difference that a test implies."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np


def lower_limit(rejects: Callable[[float], bool], mean: float, differences: np.ndarray) -> float:
    """The smallest value that a test of the differences (n,) does not reject, by bisection below their (weighted) mean;
    -inf where it rejects none. Exact to a thousandth of the standard deviation of the differences.

    `rejects(value)` is whether the test rejects that the mean is `value`; if so, it rejects every smaller one.
    """
    inside, spread = mean, float(differences.std())
    outside = float(differences.min()) - (spread or abs(inside) or 1.0)  # all differences have one sign
    if not rejects(outside):
        return -math.inf
    middle = 0.0  # the value of the verdict is tried first, so that the limit lies on the side of it that the test says
    while inside - outside > 1e-3 * spread + 1e-9 * abs(outside):
        if not outside < middle < inside:
            middle = (outside + inside) / 2
        outside, inside = (middle, inside) if rejects(middle) else (outside, middle)
    return inside
