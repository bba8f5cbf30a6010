"""Power against simulated studies: of the sign-flip test, of equivalence, and the seeds that follow from both."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats as reference

from ablations.statistics.paired import can_decide, equivalence_p
from ablations.statistics.power import (
    CONFIDENCE,
    equivalence_power,
    seeds_for_equivalence,
    seeds_to_detect,
    sign_flip_power,
    smallest_difference,
    smallest_margin,
    upper_deviation,
)
from ablations.statistics.sign_flip import sign_flip_p

STUDIES = 3000


def _rejected(differences: np.ndarray, level: float) -> float:
    """The share of studies, rows of (studies, n), that the exact test rejects: all sign vectors at once."""
    n = differences.shape[1]
    signs = np.array(list(itertools.product((1, -1), repeat=n - 1)))
    sums = np.abs(differences[:, :1] + differences[:, 1:] @ signs.T)
    return float(((sums >= sums[:, :1] - 1e-9).mean(axis=1) <= level).mean())


def test_the_simulation_is_of_our_test():
    d = np.random.default_rng(0).normal(1.0, 1.0, (60, 7))
    assert _rejected(d, 0.03) == np.mean([sign_flip_p(row) <= 0.03 for row in d])


@pytest.mark.parametrize(("n", "m"), [(6, 1), (7, 1), (8, 1), (8, 3), (8, 5), (10, 2), (10, 5)])
@pytest.mark.parametrize("effect", [0.0, 0.8, 1.5])
def test_simulated_differences_are_seen_as_often_as_theory_says(n, m, effect):
    rng = np.random.default_rng((n, m, int(10 * effect)))
    simulated = _rejected(rng.normal(effect, 1.0, (STUDIES, n)), 0.05 / m)
    error = 3 * np.sqrt(simulated * (1 - simulated) / STUDIES)
    exact = math.floor(0.05 / m * 2 ** (n - 1)) <= 3
    assert simulated - error <= sign_flip_power(n, effect, m) <= simulated + error + (0.0 if exact else 0.025)


@pytest.mark.parametrize(("n", "margin", "m"), [(6, 1.5, 1), (8, 1.2, 2), (12, 1.2, 3)])
def test_simulated_equivalence_is_seen_as_often_as_theory_says(n, margin, m):
    rng = np.random.default_rng(n)
    rows = rng.normal(0.0, 1.0, (STUDIES, n))
    simulated = np.mean([equivalence_p(row, margin) <= 0.05 / m for row in rows[:1000]])
    assert equivalence_power(n, margin, m) == pytest.approx(simulated, abs=3 * np.sqrt(0.25 / 1000))


@pytest.mark.parametrize(("n", "effect"), [(9, 1.0), (12, 0.7), (20, -0.5)])
def test_with_more_than_a_few_sign_vectors_power_is_that_of_a_t_test_at_the_same_level(n, effect):
    level = math.floor(0.05 * 2 ** (n - 1)) / 2 ** (n - 1)
    limit, noncentral = reference.t.isf(level / 2, n - 1), reference.nct(n - 1, abs(effect) * math.sqrt(n))
    assert sign_flip_power(n, effect) == pytest.approx(noncentral.sf(limit) + noncentral.cdf(-limit), abs=1e-3)


def test_what_cannot_be_decided_has_no_power():
    for n, m in itertools.product(range(1, 9), (1, 3, 6)):
        assert (sign_flip_power(n, 100.0, m) > 0) == can_decide(n, m)
        assert (smallest_difference(n, m) is not None) == can_decide(n, m)
    assert equivalence_power(1, 5.0) == 0.0
    assert smallest_margin(1) is None


def test_a_level_that_the_smallest_p_meets_exactly_is_met():
    assert sign_flip_power(3, 100.0, alpha=0.25) == pytest.approx(1.0)
    assert sign_flip_power(3, 100.0, alpha=0.2499) == 0.0


def test_two_seeds_exclude_something_and_one_contrast_is_meant_where_none_are_counted():
    assert equivalence_power(2, smallest_margin(2)) == pytest.approx(0.8)
    assert smallest_difference(8) == smallest_difference(8, 1) and smallest_margin(8) == smallest_margin(8, 1)
    assert seeds_to_detect(1.0, 1.0) == seeds_to_detect(1.0, 1.0, 1) < seeds_to_detect(1.0, 1.0, 2)
    assert seeds_for_equivalence(1.0, 1.0) == seeds_for_equivalence(1.0, 1.0, 1) < seeds_for_equivalence(1.0, 1.0, 2)


def test_detectable_and_seeds_are_each_others_inverse():
    for n, m in ((7, 1), (9, 3), (20, 5)):
        assert sign_flip_power(n, smallest_difference(n, m), m) == pytest.approx(0.8)
        assert seeds_to_detect(2.0 * smallest_difference(n, m) * 1.001, 2.0, m) == n
        assert equivalence_power(n, smallest_margin(n, m), m) == pytest.approx(0.8)
        assert seeds_for_equivalence(0.5 * smallest_margin(n, m) * 1.001, 0.5, m) == n


def test_more_contrasts_and_smaller_differences_take_more_seeds():
    assert seeds_to_detect(1.0, 1.0, 1) < seeds_to_detect(1.0, 1.0, 5) < seeds_to_detect(0.5, 1.0, 5)
    assert seeds_for_equivalence(1.0, 1.0, 1) < seeds_for_equivalence(1.0, 1.0, 5) < seeds_for_equivalence(0.5, 1.0, 5)
    assert seeds_to_detect(0.01, 1.0) is None
    assert seeds_for_equivalence(0.01, 1.0) is None


def test_the_upper_deviation_is_above_the_true_one_as_often_as_it_says():
    measured = np.random.default_rng(5).normal(0.0, 2.0, (4000, 6)).std(axis=1, ddof=1)
    above = np.mean([upper_deviation(deviation, 6) >= 2.0 for deviation in measured])
    assert above == pytest.approx(CONFIDENCE, abs=0.02)
