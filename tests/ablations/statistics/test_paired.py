"""Paired statistics against hand-computed values, SciPy, and simulated nulls."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from ablations.statistics.design import describe_design
from ablations.statistics.holm import holm
from ablations.statistics.paired import (
    MIN_BOOTSTRAP_PAIRS,
    bootstrap_interval,
    can_decide,
    compare,
    compare_samples,
    equivalence_p,
    interval,
    mean_std,
    paired,
    seeds_needed,
    smallest_adjusted_p,
    smallest_p,
)
from ablations.statistics.sign_flip import sign_flip_interval, sign_flip_p

HAND = [
    # All signs alike: only +++ and --- are as extreme.
    ([1.0, 2.0, 3.0], 2 / 8),
    # |sum| is 4: of +-1 +-2 +-3 sums, 6, 4, -4, -6 are at least as extreme.
    ([-1.0, 2.0, 3.0], 4 / 8),
    # |sum| is 0: everything is.
    ([1.0, 2.0, -3.0], 1.0),
    ([0.0, 0.0], 1.0),
    ([0.3], 1.0),
    ([], 1.0),
    # Ties in binary fractions: 0.1 + 0.2 and 0.3 must count as equal, so four assignments reach |sum| = 0.6 or 0.
    ([0.1, 0.2, 0.3], 2 / 8),
    ([0.1, 0.2, -0.3], 1.0),
    ([2.0] * 6, 2 / 64),
]


@pytest.mark.parametrize(("differences", "p"), HAND)
def test_sign_flip_by_hand(differences, p):
    assert sign_flip_p(np.array(differences)) == pytest.approx(p, abs=1e-15)


def test_sign_flip_is_exact_where_enumeration_is_out_of_reach():
    assert sign_flip_p(np.ones(40)) == pytest.approx(2 / 2**40, rel=1e-3)
    d = np.random.default_rng(0).normal(0.3, 1.0, 40)
    assert sign_flip_p(d) == pytest.approx(reference.ttest_1samp(d, 0).pvalue, abs=0.02)


def test_paired_takes_the_seeds_both_have():
    assert paired({0: 5.0, 2: 7.0, 3: 1.0}, {3: 0.5, 2: 4.0, 9: 1.0}).tolist() == [3.0, 0.5]
    assert paired({0: 1.0}, {1: 1.0}).size == 0


def test_mean_std_and_interval_are_the_textbooks():
    d = np.array([1.0, 2.0, 3.0, 4.0])
    assert mean_std(d) == (2.5, pytest.approx(1.2909944487358056))
    # t(0.975, 3) = 3.182446, and the standard error is 0.6454972.
    assert interval(d) == (pytest.approx(0.445739, abs=1e-6), pytest.approx(4.554261, abs=1e-6))
    assert all(map(math.isnan, interval(np.array([1.0]))))
    assert all(map(math.isnan, mean_std([])))


GOLDEN = (0.7068838807204261, 2.4009252893169126)


def test_the_bootstrap_interval_is_the_same_on_every_call_and_knows_the_scale():
    d = np.random.default_rng(4).exponential(1.0, 9)
    low, high = bootstrap_interval(d)
    assert low < d.mean() < high
    assert bootstrap_interval(d) == (low, high) == pytest.approx(GOLDEN, abs=1e-9)
    assert bootstrap_interval(4.0 * d) == (4 * low, 4 * high)
    assert bootstrap_interval(np.full(6, 0.1)) == (0.1, 0.1)
    assert all(map(math.isnan, bootstrap_interval(d[: MIN_BOOTSTRAP_PAIRS - 1])))


def test_a_bootstrap_interval_of_many_pairs_is_as_wide_as_students_and_leans_with_the_tail():
    normal = np.random.default_rng(5).normal(1.0, 2.0, 60)
    assert bootstrap_interval(normal) == pytest.approx(interval(normal), abs=0.1)
    skewed = np.random.default_rng(6).exponential(1.0, 12)
    low, high = bootstrap_interval(skewed)
    assert high - skewed.mean() > skewed.mean() - low


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005])[0] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [[1.0, 1.0]]
    assert holm([]) == [[]]


def test_claims_of_which_one_a_contrast_can_be_wrong_share_a_family():
    # 0.01 three contrasts open, 0.012 all three, for the first may yet be called equivalent, 0.013 two, 0.02 two
    differ, same = holm([0.01, 0.5, 0.012], [0.013, 0.02, 0.9])
    assert differ == pytest.approx([0.03, 1.0, 0.036])
    assert same == pytest.approx([0.039, 0.04, 1.0])


def test_equivalence_of_one_pair_and_of_equal_ones():
    assert equivalence_p(np.array([0.1]), 0.3) == 1.0
    assert equivalence_p(np.array([0.1, 0.1]), 0.3) == 0.0
    assert equivalence_p(np.array([0.3, 0.3]), 0.3) == 1.0


def _scores(differences: list[float]) -> dict[str, dict[int, float]]:
    return {"a": dict(enumerate(differences)), "b": dict.fromkeys(range(len(differences)), 0.0)}


@pytest.mark.parametrize(
    ("differences", "margin", "verdict"),
    [
        ([1.0, 1.1, 0.9, 1.2, 1.0, 0.8], None, "better"),
        ([-1.0, -1.1, -0.9, -1.2, -1.0, -0.8], None, "worse"),
        ([1.0, 1.1, 0.9, 1.2, 1.0], None, "undecided"),
        ([1.0, -1.1, 0.9, 1.2, -1.0, 0.8], 0.3, "undecided"),
        ([0.01, -0.02, 0.01, 0.0, -0.01, 0.02], 0.3, "equivalent"),
        # A proven gain that the study said would not matter.
        ([0.10, 0.11, 0.09, 0.12, 0.10, 0.08], 0.3, "equivalent"),
        ([0.10, 0.11, 0.09, 0.12, 0.10, 0.08], 0.05, "better"),
        ([], None, "undecided"),
    ],
)
def test_verdicts(differences, margin, verdict):
    (found,) = compare(_scores(differences), [("a", "b")], margin)
    assert found.verdict == verdict
    assert found.n == len(differences)


SIZES = st.integers(-30, 30) | st.integers(-3, 3)


@given(
    st.lists(st.lists(SIZES, max_size=10), min_size=1, max_size=4),
    st.sampled_from([None, 0.2, 1.0]),
    st.integers(0, 12),
)
def test_an_interval_excludes_zero_if_and_only_if_the_row_says_better_or_worse(samples, margin, tests):
    differences = [np.array(sample) / 10 for sample in samples]
    for one in compare_samples(differences, [True] * len(samples), margin, tests=tests):
        if one.verdict == "equivalent":
            assert -margin < one.low <= one.high < margin
        else:
            assert (one.low > 0) == (one.verdict == "better")
            assert (one.high < 0) == (one.verdict == "worse")


def test_the_row_that_contradicted_itself():
    """Student's interval holds 0 and the exact test rejects it: the interval shown is the test's."""
    d = np.array([-0.0005, 0.113, -0.015, 1.211, 0.208, 0.053, -0.017, 0.039, 0.026])
    (found,) = compare(_scores(d.tolist()), [("a", "b")])
    assert found.verdict == "better"
    assert interval(d)[0] < 0 < found.low


def test_a_contrast_whose_seeds_have_not_ended_has_no_interval():
    (found,) = compare(_scores([1.0] * 8), [("a", "b")], pending=[("a", "b")])
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_a_comparison_holds_all_intervals():
    d = np.random.default_rng(8).normal(0.5, 1.0, 9)
    ((found,), (nothing,)) = (compare(scores, [("a", "b")]) for scores in (_scores(d.tolist()), {}))
    low, high = interval(d)
    bootstrap_low, bootstrap_high = bootstrap_interval(d)
    assert (found.low, found.high) == sign_flip_interval(d, 0.05)
    assert found.values() == pytest.approx(
        {
            "pairs": 9,
            "difference": d.mean(),
            "deviation": d.std(ddof=1),
            "low": low,
            "high": high,
            "level": 0.05,
            "interval_low": found.low,
            "interval_high": found.high,
            "bootstrap_low": bootstrap_low,
            "bootstrap_high": bootstrap_high,
            "p": sign_flip_p(d),
        }
    )
    assert (nothing.n, nothing.p, nothing.verdict) == (0, 1.0, "undecided")


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_three_seeds_can_never_be_significant(size):
    (found,) = compare(_scores([size, size, size]), [("a", "b")])
    assert (found.verdict, found.p) == ("undecided", 0.25)


def test_a_pending_contrast_stays_undecided_and_in_the_family():
    scores = _scores([1.0] * 7) | {"c": dict.fromkeys(range(7), 3.0)}
    first, second = compare(scores, [("a", "b"), ("c", "b")], margin=0.3, pending=[("c", "b")])
    assert (second.verdict, second.p) == ("undecided", 1.0)
    assert (first.verdict, first.p) == ("better", pytest.approx(2 * 2 / 128))


def test_what_a_design_can_reach():
    assert [smallest_p(n) for n in (0, 1, 2, 3, 6)] == [1.0, 1.0, 0.5, 0.25, 2 / 64]
    assert smallest_adjusted_p(8, 3) == pytest.approx(6 / 256)
    assert can_decide(8, 6)
    assert not can_decide(8, 7)
    assert [seeds_needed(m) for m in (1, 2, 3, 5, 6)] == [6, 7, 7, 8, 8]
    assert describe_design(3, 5) == (
        "this design cannot decide a difference: 3 seeds, 5 contrasts, the smallest adjusted p is 1; 8 seeds could"
    )
    assert (
        describe_design(6, 1)
        == "6 seeds, 1 contrast: the smallest adjusted p is 0.031, so a difference can be decided at 5 %"
    )


def test_a_design_is_described_at_the_level_that_is_asked_for():
    said = "3 seeds, 1 contrast: the smallest adjusted p is 0.25, so a difference can be decided at 25 %"
    assert describe_design(3, 1, alpha=0.25) == said
    assert describe_design(2, 1, alpha=0.25).endswith("; 3 seeds could")


def test_the_bound_is_what_the_test_reaches():
    for n in range(1, 12):
        (found,) = compare(_scores([1.0 + i for i in range(n)]), [("a", "b")])
        assert found.p == pytest.approx(smallest_adjusted_p(n, 1))


@pytest.mark.slow
def test_false_differences_stay_below_five_percent_a_table():
    """Three arms like their reference, heavy-tailed seeds: tables with any `better` or `worse`."""
    generator = np.random.default_rng(20220228)
    tables, false = 1500, 0
    contrasts = [("a", "z"), ("b", "z"), ("c", "z")]
    for _ in range(tables):
        scores = {arm: dict(enumerate(generator.standard_t(3, 9))) for arm in "abcz"}
        false += any(found.verdict in ("better", "worse") for found in compare(scores, contrasts))
    assert false / tables <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / tables)
    assert false > 0


@pytest.mark.slow
def test_false_equivalence_stays_below_five_percent_a_table():
    """Two arms exactly at the margin, where `equivalent` is wrong and most tempting."""
    generator = np.random.default_rng(7)
    tables, false = 1500, 0
    for _ in range(tables):
        scores = {arm: dict(enumerate(generator.normal(0.3, 0.2, 8))) for arm in "ab"}
        scores["z"] = dict.fromkeys(range(8), 0.0)
        false += any(found.verdict == "equivalent" for found in compare(scores, [("a", "z"), ("b", "z")], margin=0.3))
    assert false / tables <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / tables)
    assert false > 0


@pytest.mark.slow
def test_false_verdicts_of_either_kind_stay_below_five_percent_a_table():
    """One arm like its reference and one exactly at the margin: a table can be wrong about both, in different words."""
    generator = np.random.default_rng(11)
    tables, wrong = 1500, {"a": 0, "b": 0, "either": 0}
    for _ in range(tables):
        scores = {
            arm: dict(enumerate(generator.normal(*law, 8))) for arm, law in (("a", (0.0, 0.6)), ("b", (0.3, 0.1)))
        }
        scores["z"] = dict.fromkeys(range(8), 0.0)
        alike, apart = (found.verdict for found in compare(scores, [("a", "z"), ("b", "z")], margin=0.3))
        mistakes = {"a": alike in ("better", "worse"), "b": apart == "equivalent"}
        for name, made in (mistakes | {"either": any(mistakes.values())}).items():
            wrong[name] += made
    assert wrong["either"] / tables <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / tables)
    assert min(wrong.values()) > 0


def test_a_real_difference_is_found():
    generator = np.random.default_rng(3)
    found = 0
    for _ in range(100):
        noise = generator.normal(0, 1, 8)
        scores = {"a": dict(enumerate(noise + generator.normal(2.0, 0.5, 8))), "z": dict(enumerate(noise))}
        found += compare(scores, [("a", "z")])[0].verdict == "better"
    assert found >= 95
