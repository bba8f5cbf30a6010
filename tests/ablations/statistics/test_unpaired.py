"""The permutation test of two samples against scipy's, its interval, and verdicts after Holm by closed testing."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ablations.statistics import sign_flip, unpaired
from ablations.statistics.sign_flip import sign_flip_p
from ablations.statistics.unpaired import (
    compare_unpaired,
    permutations,
    smallest_unpaired_p,
    values_needed,
    welch_interval,
)

TENTHS = st.lists(st.integers(-30, 30) | st.integers(-3, 3), min_size=1, max_size=5)
SEVERAL = TENTHS.filter(lambda values: len(values) > 1)  # scipy refuses a sample of one
LEVELS = st.sampled_from([0.05, 0.1, 0.05 / 3, 0.5])


def gap(one, other, axis):
    return np.mean(one, axis=axis) - np.mean(other, axis=axis)


@given(SEVERAL, SEVERAL)
def test_p_is_scipys(arm, reference):
    x, y = np.array(arm) / 10, np.array(reference) / 10
    found = stats.permutation_test((x, y), gap, permutation_type="independent", vectorized=True, n_resamples=np.inf)
    assert permutations(x, y).p() == pytest.approx(found.pvalue)


@given(TENTHS, TENTHS, LEVELS, st.integers(-60, 60))
def test_the_interval_holds_exactly_the_differences_that_are_not_rejected(arm, reference, level, near):
    x, y = np.array(arm) / 10, np.array(reference) / 10
    low, high = permutations(x, y).interval(level)
    for value in (0.0, near / 10 + 0.1 / math.pi, float(x.mean() - y.mean())):
        assert (low <= value <= high) == (permutations(x - value, y).p() > level)


@pytest.mark.parametrize("seed", range(3))
def test_a_draw_of_the_ways_agrees_with_all_of_them(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(0.8, 1.0, 9), rng.normal(0.0, 1.0, 8)
    exact = permutations(x, y)
    monkeypatch.setattr(unpaired, "MAX_ENUMERATED", 10)
    drawn = permutations(x, y)
    p = exact.p()
    assert drawn.swapped.size > 99_000
    assert drawn.p() == pytest.approx(p, abs=5 * 2 * math.sqrt(p / 2 * (1 - p / 2) / 100_000))
    assert drawn.interval(0.05) == pytest.approx(exact.interval(0.05), abs=0.05)
    assert permutations(x, y).p() == drawn.p(), "the seed is fixed"


@given(st.lists(TENTHS, min_size=3, max_size=4))
def test_adjusted_p_are_those_of_closed_testing(samples):
    scores = {str(i): [value / 10 for value in values] for i, values in enumerate(samples)}
    pairs = [(arm, "0") for arm in scores if arm != "0"]
    p = [permutations(scores[arm], scores["0"]).p() for arm, _ in pairs]
    family = range(len(p))
    holding = {i: [s for k in family for s in itertools.combinations(family, k + 1) if i in s] for i in family}
    closed = [max(min(1.0, len(s) * min(p[k] for k in s)) for s in holding[i]) for i in family]
    found = compare_unpaired(scores, pairs)
    assert [one.p for one in found] == pytest.approx(closed)
    for one in found:
        assert (one.low > 0 or one.high < 0) == (one.verdict in ("better", "worse"))


def test_the_smallest_p_is_that_of_separate_samples():
    for n, other in ((3, 3), (2, 5), (1, 20)):
        x, y = np.arange(n) + 100.0, np.arange(other)
        assert permutations(x, y).p() == smallest_unpaired_p(n, other) == min(1.0, 2 / math.comb(n + other, n))
    assert [values_needed(m) for m in (1, 2, 7)] == [4, 5, 6]


def test_equivalence_is_shown_by_two_one_sided_welch_tests():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 0.1, 8), rng.normal(0, 0.2, 6)
    scores = {"a": (a - a.mean()).tolist(), "b": (b - b.mean()).tolist()}
    (found,) = compare_unpaired(scores, [("a", "b")], margin=1.0)
    assert found.verdict == "equivalent" and -1 < found.low < found.high < 1
    theirs = stats.ttest_ind(scores["a"], scores["b"], equal_var=False).confidence_interval(0.95)
    assert welch_interval(np.array(scores["a"]), np.array(scores["b"])) == pytest.approx(tuple(theirs))
    (found,) = compare_unpaired(scores, [("a", "b")], margin=0.01)
    assert found.verdict == "undecided"


@pytest.mark.parametrize("spread", ["standard_normal", "standard_exponential"])
def test_p_of_many_pairs_agrees_with_the_enumeration_of_their_signs(spread, monkeypatch):
    d = getattr(np.random.default_rng(3), spread)(28) + 0.3
    exact = sign_flip_p(d)
    sign_flip._sign_flip_p.cache_clear()
    monkeypatch.setattr(sign_flip, "MAX_COUNTED", 10)
    assert sign_flip_p(d) == pytest.approx(exact, rel=2e-3)
    sign_flip._sign_flip_p.cache_clear()
