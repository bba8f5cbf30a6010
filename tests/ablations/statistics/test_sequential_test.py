"""The sequential test against full enumeration, the fixed test, and simulated margins."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from ablations.statistics.sequential_test import differ_p, first_look, levels, same_p, shares
from ablations.statistics.sign_flip import sign_flip_p


def _blocks(differences, looks):
    return [differences[start:stop] for start, stop in itertools.pairwise((0, *looks))]


@pytest.mark.parametrize("draw", ["normal", "standard_cauchy", "poisson"])
def test_of_all_assignments_of_signs_no_more_than_the_share_crosses_by_any_look(draw):
    """The guarantee itself, counted: for these sizes of differences, each of the 2**8 sign vectors is judged."""
    looks, m, alpha = (5, 6, 8), 3, 0.3
    rng = np.random.default_rng(11)
    sizes = np.abs({"poisson": lambda n: rng.poisson(2.0, n)}.get(draw, lambda n: getattr(rng, draw)(size=n))(8))
    signs = np.array(list(itertools.product((-1, 1), repeat=8)))
    p = np.array([differ_p(_blocks(sizes * row, looks), looks, m, alpha) for row in signs])
    crossed = 0
    for level in levels(m, alpha):
        shares_of = (p <= level).mean(axis=0)
        assert (shares_of <= level * shares(looks)).all()
        crossed += shares_of[-1] > 0
    assert crossed == m


def test_what_was_rejected_at_a_look_stays_so_whatever_later_pairs_say():
    assert differ_p([np.ones(6), np.full(2, -3.0)], (6, 8), 1) == [pytest.approx(0.05)] * 2


def test_what_a_look_leaves_unspent_the_next_may_spend():
    """At 5 pairs nothing can be rejected; then the second look has all that a fixed test of 8 pairs has."""
    rng = np.random.default_rng(3)
    for _ in range(50):
        d = rng.normal(0.8, 1.0, 8)
        assert (differ_p(_blocks(d, (5, 8)), (5, 8), 1)[1] <= 0.05) == (sign_flip_p(d) <= 0.05)


@pytest.mark.parametrize("n", [6, 9, 14])
def test_one_look_is_the_fixed_test_at_every_level(n):
    rng = np.random.default_rng(n)
    for _ in range(40):
        d = rng.normal(0.9, 1.0, n)
        (p,) = differ_p([d], (n,), 4)
        assert p == pytest.approx(min((level for level in levels(4) if sign_flip_p(d) <= level), default=1.0))


def test_a_sixth_seed_can_decide_one_contrast_and_not_two():
    d = np.ones(6)
    assert differ_p([d], (6, 8, 12), 1) == [pytest.approx(0.05)]
    assert differ_p([d], (6, 8, 12), 2) == [pytest.approx(0.05)]  # of the level alpha; Holm asks for alpha / 2 first
    assert differ_p([d, np.ones(2)], (6, 8, 12), 2)[1] == pytest.approx(0.025)
    assert [first_look((6, 8, 12), m) for m in (1, 2, 5, 6, 40)] == [6, 8, 8, 12, 12]
    assert first_look((3, 5), 1) is None
    assert first_look((3,), 1, alpha=0.25) == 3  # p = 2 / 8 meets it exactly


@pytest.mark.parametrize("d", [np.zeros(8), np.array([])], ids=["all equal", "no pair"])
def test_without_a_difference_nothing_is_rejected(d):
    assert differ_p(_blocks(d, (4, 8)), (4, 8), 2) == [1.0, 1.0]


def test_differences_of_any_size_stay_countable():
    d = np.array([1e-9] * 6 + [1e9] * 2)
    assert differ_p(_blocks(d, (6, 8)), (6, 8), 1)[1] <= 0.05


def test_forty_seeds_are_counted_as_six_are():
    assert differ_p(_blocks(np.ones(40), (10, 40)), (10, 40), 1)[1] <= 0.05
    balanced = np.tile([1.0, -1.0], 20)
    assert differ_p(_blocks(balanced, (10, 40)), (10, 40), 1) == [1.0, 1.0]


def test_holms_levels_are_all_there_for_a_handful_of_contrasts():
    assert levels(5) == pytest.approx([0.05, 0.025, 0.05 / 3, 0.0125, 0.01])
    for m in (1, 7, 60):
        assert m * levels(m)[-1] <= 0.05
        assert levels(m)[-1] == pytest.approx(0.05 / m)


@pytest.mark.slow
@pytest.mark.parametrize("looks", [(3, 4, 5), (6, 8, 12), (4, 40)])
def test_equivalence_over_looks_is_wrong_in_five_percent_at_the_margins_edge(looks):
    rng = np.random.default_rng(looks)
    studies = 2000
    wrong = sum(same_p(_blocks(rng.normal(0.3, 0.1, looks[-1]), looks), looks, 0.3)[-1] <= 0.05 for _ in range(studies))
    slack = 3 * math.sqrt(0.05 * 0.95 / studies)
    assert 0.05 - slack <= wrong / studies <= 0.05 + slack


def test_equivalence_is_seen_at_the_first_look_where_it_is_plain():
    d = np.random.default_rng(1).normal(0.0, 0.05, 12)
    p = same_p(_blocks(d, (6, 8, 12)), (6, 8, 12), 0.3)
    assert p[0] < 0.001
    assert same_p(_blocks(d, (6, 8, 12)), (6, 8, 12), 0.001)[-1] > 0.5
