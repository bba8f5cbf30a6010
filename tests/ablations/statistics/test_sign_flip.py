"""The interval of the sign-flip test: what it holds is what the test does not reject."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablations.statistics import sign_flip
from ablations.statistics.sign_flip import sign_flip_interval, sign_flip_p

TENTHS = st.integers(-4, 4) | st.integers(-1000, 1000)
LEVELS = st.sampled_from([0.05, 0.025, 0.05 / 3, 0.05 / 7, 0.5])


@given(st.lists(TENTHS, min_size=1, max_size=10), LEVELS, st.integers(-1100, 1100))
def test_it_holds_exactly_the_differences_that_are_not_rejected(tenths, level, near):
    d = np.array(tenths) / 10
    low, high = sign_flip_interval(d, level)
    for value in (0.0, near / 10 + 0.1 / math.pi, float(d.mean())):
        assert (low <= value <= high) == (sign_flip_p(d - value) > level)


@given(st.lists(TENTHS, min_size=1, max_size=10), LEVELS, st.integers(-50, 50))
def test_it_moves_with_the_differences(tenths, level, shift):
    low, high = sign_flip_interval(np.array(tenths) / 10, level)
    assert sign_flip_interval(np.array(tenths) / 10 + shift, level) == pytest.approx((low + shift, high + shift))
    assert sign_flip_interval(-np.array(tenths) / 10, level) == pytest.approx((-high, -low))


@pytest.mark.parametrize("n", [0, 1, 3, 5])
def test_few_pairs_cannot_reach_the_level(n):
    assert sign_flip_interval(np.ones(n), 0.05) == (-math.inf, math.inf)


def test_six_pairs_reach_from_the_smallest_to_the_largest():
    assert sign_flip_interval(np.array([0.3, 1.0, 0.2, -0.1, 0.5, 0.4]), 0.05) == (-0.1, 1.0)


@pytest.mark.parametrize("n", [9, 40])
@pytest.mark.parametrize("value", [0.0, 2.5, -1e-9])
def test_constant_differences_are_their_own_interval(n, value):
    assert sign_flip_interval(np.full(n, value), 0.05) == (value, value)


@pytest.mark.parametrize("spread", ["standard_normal", "standard_exponential", "standard_cauchy"])
def test_many_pairs_agree_with_the_enumeration_of_their_subsets(spread, monkeypatch):
    d = getattr(np.random.default_rng(5), spread)(18) + 0.2
    exact = sign_flip_interval(d, 0.01)
    monkeypatch.setattr(sign_flip, "MAX_ENUMERATED", 10)
    assert sign_flip_interval(d, 0.01) == pytest.approx(exact, abs=2e-3 * d.std() / math.sqrt(d.size))


@pytest.mark.parametrize("equal", [0.0, 0.3, -1.0])
@pytest.mark.parametrize("others", [[1.0], [1.0, 1.0, -2.0], [0.5] * 4, list(range(2, 8))])
def test_many_pairs_that_are_mostly_equal_agree_with_the_enumeration_of_their_subsets(equal, others, monkeypatch):
    d = np.array([equal] * (17 - len(others)) + others)
    for sample in (d, -d):
        exact = sign_flip_interval(sample, 0.01)
        with monkeypatch.context() as patched:
            patched.setattr(sign_flip, "MAX_ENUMERATED", 10)
            assert sign_flip_interval(sample, 0.01) == pytest.approx(exact, abs=2e-3 * d.std() / math.sqrt(d.size))


@pytest.mark.parametrize("seed", range(5))
def test_the_verdict_and_the_interval_of_many_pairs_agree_however_near_the_limit_is_to_zero(seed):
    d = np.random.default_rng(seed).normal(0.4, 1.0, 24)
    low, _ = sign_flip_interval(d, 0.05)
    for nudge in (-1e-5, -1e-9, 0.0, 1e-9, 1e-5):
        moved = d - low + nudge
        below, above = sign_flip_interval(moved, 0.05)
        assert (below <= 0.0 <= above) == (sign_flip_p(moved) > 0.05)
