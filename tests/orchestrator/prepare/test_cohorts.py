"""Forming cohorts: every run once, only runs that may train together, no more than fit, and never later than alone."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.prepare.cohorts import Costed, cost, ends, form

COSTS = st.floats(0.1, 100, allow_nan=False)


@st.composite
def runs(draw):
    """Runs of a few groups, some of which have begun; those of a group have one teacher."""
    groups = draw(
        st.lists(st.tuples(st.sampled_from(["a", "b", "c", "d"]), COSTS), min_size=1, unique_by=lambda g: g[0])
    )
    found = []
    for number in range(draw(st.integers(0, 30))):
        group, teacher = draw(st.sampled_from([*groups, ("", 3.0)]))
        epochs = draw(st.integers(1, 20))
        found.append(
            Costed(
                f"run{number}",
                group,
                draw(COSTS),
                draw(st.sampled_from([teacher, 0.0])),
                (draw(st.integers(0, epochs - 1)), epochs),
                draw(st.sampled_from([1, 2, 5, 16])),
            )
        )
    return found


def makespan(cohorts, slots):
    return max(ends(map(cost, cohorts), slots), default=0.0)


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(runs(), st.integers(1, 9), st.integers(2, 20))
def test_every_run_is_in_one_cohort_that_may_be_and_none_ends_later(runs, slots, most):
    found = [cohort.runs for cohort in form(runs, slots, most)]
    assert sorted(run.name for cohort in found for run in cohort) == sorted(run.name for run in runs)
    for cohort in found:
        assert 1 <= len(cohort) <= most
        if len(cohort) > 1:
            assert len({run.group for run in cohort}) == 1 and cohort[0].group
            assert len(cohort) <= min(run.fits for run in cohort)
        order = [runs.index(run) for run in cohort]
        assert order == sorted(order)
    alone = makespan([(run,) for run in runs], slots)
    assert makespan(found, slots) <= alone
    if any(len(cohort) > 1 for cohort in found):
        assert makespan(found, slots) < alone or sum(map(cost, found)) < sum(cost((run,)) for run in runs)


def grid(seeds, arms, teacher=3.0, student=1.0):
    return [
        Costed(f"{arm} {seed}", f"seed {seed}", student, teacher, (0, 10))
        for seed in range(seeds)
        for arm in range(arms)
    ]


@pytest.mark.parametrize(
    ("seeds", "arms", "slots", "sizes"),
    [
        (1, 6, 1, [6]),  # one pass of the teacher for all
        (1, 6, 2, [3, 3]),  # two free cores: two processes end sooner than one
        (1, 6, 6, [1] * 6),  # a core for each run: nothing ends sooner than a run alone
        (2, 6, 2, [6, 6]),
        (3, 6, 2, [6, 6, 3, 3]),
        (8, 6, 2, [6] * 8),
        (1, 20, 1, [10, 10]),  # of at most 16
    ],
)
def test_cohorts_are_as_large_as_the_free_slots_ask_for(seeds, arms, slots, sizes):
    assert [len(cohort.runs) for cohort in form(grid(seeds, arms), slots)] == sizes


def test_runs_without_a_teacher_gain_nothing_and_stay_alone():
    assert [len(cohort.runs) for cohort in form(grid(2, 4, teacher=0.0), 1)] == [1] * 8


def test_a_run_far_ahead_shares_no_pass_and_runs_of_two_groups_none():
    ahead = Costed("ahead", "a", 1.0, 9.0, (90, 100))
    behind = Costed("behind", "a", 1.0, 9.0, (0, 10))
    assert [cohort.runs for cohort in form([ahead, behind], 1)] == [(ahead,), (behind,)]
    other = behind._replace(name="other", group="b")
    assert [cohort.runs for cohort in form([behind, other], 1)] == [(behind,), (other,)]


def test_the_longest_cohort_starts_first():
    found = form([*grid(1, 2), *(run._replace(group="long", epochs=(0, 90)) for run in grid(1, 2))], 1)
    assert [cohort.runs[0].group for cohort in found] == ["long", "seed 0"]
