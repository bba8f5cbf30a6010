"""The sign-flip test over studies, against all sign patterns one by one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablations.statistics.sign_flip import sign_flip_interval, sign_flip_p
from ablations.statistics.stratified import MOST_EXACT, _bound, mean_of_means, stratified_interval, stratified_p

tenths = st.integers(-30, 30).map(lambda tenth: tenth / 10)
small_strata = st.lists(st.lists(tenths, min_size=1, max_size=3), min_size=1, max_size=3).map(
    lambda strata: [np.array(d) for d in strata]
)


def brute_p(strata):
    """The share of all sign patterns whose mean of means is at least as far from 0."""
    seen = abs(mean_of_means(strata))
    patterns = list(itertools.product((1, -1), repeat=sum(d.size for d in strata)))
    ends = np.cumsum([d.size for d in strata])[:-1]
    means = [mean_of_means([s * d for s, d in zip(np.split(np.array(p), ends), strata, strict=True)]) for p in patterns]
    return np.mean(np.abs(means) >= seen - 1e-9)


@settings(max_examples=40, deadline=None)
@given(small_strata)
def test_p_is_the_share_of_sign_patterns(strata):
    assert stratified_p(strata) == pytest.approx(brute_p(strata))


@settings(max_examples=40, deadline=None)
@given(small_strata)
def test_p_does_not_depend_on_order_direction_or_scale(strata):
    p = stratified_p(strata)
    assert stratified_p(strata[::-1]) == pytest.approx(p)
    assert stratified_p([-d for d in strata]) == pytest.approx(p)
    assert stratified_p([8 * d for d in strata]) == pytest.approx(p)


@settings(max_examples=40, deadline=None)
@given(st.lists(tenths, min_size=1, max_size=9).map(np.array), st.sampled_from([0.05, 0.2]))
def test_one_study_is_tested_as_by_itself(d, level):
    assert stratified_p([d]) == pytest.approx(sign_flip_p(d))
    assert stratified_interval([d], level) == pytest.approx(sign_flip_interval(d, level), abs=2e-3 * d.std() + 1e-6)


@settings(max_examples=40, deadline=None)
@given(small_strata, st.sampled_from([0.05, 0.2, 0.5]))
def test_the_interval_inverts_the_test(strata, level):
    low, high = stratified_interval(strata, level)
    assert low <= mean_of_means(strata) <= high
    assert (low > 0 or high < 0) == (stratified_p(strata) <= level)
    margin = 0.01 + 2e-3 * np.concatenate(strata).std()
    for limit, outwards in ((low, -margin), (high, margin)):
        if np.isfinite(limit):
            assert stratified_p([d - (limit + outwards) for d in strata]) <= level
            assert stratified_p([d - (limit - outwards) for d in strata]) > level or high - low < 2 * margin


def test_each_study_weighs_the_same():
    few, many = np.array([1.0, 1.0]), np.full(8, -1.0)
    assert mean_of_means([few, many]) == 0.0
    assert stratified_p([few, many]) == 1.0


@pytest.mark.parametrize("seed", range(4))
def test_of_many_differences_p_is_a_close_bound(seed):
    rng = np.random.default_rng(seed)
    d = rng.normal(0.2 * seed, 1.0, MOST_EXACT)
    assert sign_flip_p(d) <= _bound(d) <= 1.01 * sign_flip_p(d) + 1e-9
    halves = [np.concatenate([d, -d[::2]]), d]
    assert sum(half.size for half in halves) > MOST_EXACT
    low, high = stratified_interval(halves, 0.05)
    assert (low > 0 or high < 0) == (stratified_p(halves) <= 0.05)


@pytest.mark.parametrize("strata", [[], [np.array([]), np.array([1.0] * 9)]])
def test_a_study_without_a_pair_decides_nothing(strata):
    assert stratified_p(strata) == 1.0
    assert stratified_interval(strata, 0.05) == (-np.inf, np.inf)


def test_many_equal_differences_have_no_doubt():
    assert _bound(np.zeros(50)) == 1.0
    assert stratified_p([np.ones(30)] * 3) == pytest.approx(2.0**-89, rel=0.01)
