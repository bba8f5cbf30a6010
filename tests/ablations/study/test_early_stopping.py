"""Early stopping: the rules as tables, and verdicts that depend on nothing but the curves."""

import itertools
import math
import random
import time

import pytest

from ablations.study.early_stopping import MIN_FINISHED, TrialSoFar, Verdict, batch_verdicts, passes_median, passes_rung
from ablations.study.search import Search


def search(**given):
    space = {"distill.csf.weight": {"log": [0.1, 1.0]}}
    return Search.model_validate({"trials": 9, "stop": "asha", "space": space, **given})


@pytest.mark.parametrize(
    ("value", "others", "eta", "passes"),
    [
        (0.1, [], 3, True),  # the first at a rung has nobody to be worse than
        (0.1, [0.2], 3, False),
        (0.2, [0.1], 3, True),
        (0.2, [0.2], 3, True),  # a tie is not worse
        (0.3, [0.4, 0.1, 0.2], 3, True),  # four are there: two go on
        (0.2, [0.4, 0.3, 0.1], 3, False),
        (0.3, [0.4, 0.1], 2, True),
        (math.nan, [], 3, False),
        (0.1, [math.nan, math.nan], 3, True),
    ],
)
def test_the_rule_of_a_rung(value, others, eta, passes):
    assert passes_rung(value, others, eta) is passes


RISING = [{1: level, 2: level + 2.0, 3: level + 4.0} for level in (1.0, 2.0, 3.0, 4.0, 5.0)]
"""Finished curves, whose running averages after two epochs are 2, 3, 4, 5, 6."""


@pytest.mark.parametrize(
    ("curve", "epoch", "finished", "passes"),
    [
        ({1: 0.0}, 1, RISING[: MIN_FINISHED - 1], True),  # of so few the median is luck
        ({1: 3.0}, 1, RISING, True),  # at the median is not below it
        ({1: 2.9}, 1, RISING, False),
        ({1: 4.1, 2: 0.0}, 2, RISING, True),  # its best so far counts, not its last
        ({1: 0.0, 2: 3.9}, 2, RISING, False),
        ({1: 0.0, 2: 4.0}, 2, RISING, True),
        ({1: math.nan}, 1, RISING, False),
        ({2: 4.0}, 2, [*RISING, {}], True),  # a trial that showed nothing has no average
        ({1: 3.0}, 1, [*RISING[:4], {1: math.nan}], True),
    ],
)
def test_the_median_rule(curve, epoch, finished, passes):
    assert passes_median(curve, epoch, finished) is passes


def test_brackets_share_the_trials_as_hyperband_does_at_any_moment():
    three = search(brackets=3)
    # ceil(3/3 * 9), ceil(3/2 * 3), ceil(3/1 * 1) of 17 trials
    assert three.shares == (9 / 17, 5 / 17, 3 / 17)
    given = [three.bracket(number) for number in range(34)]
    assert [given.count(bracket) for bracket in range(3)] == [18, 10, 6]
    for n in range(1, 35):
        assert all(abs(given[:n].count(b) - share * n) < 1 for b, share in enumerate(three.shares))
    assert [three.rungs(28, bracket) for bracket in range(3)] == [(1, 3, 9, 27), (3, 9, 27), (9, 27)]
    assert search().shares == (1.0,) and search().bracket(7) == 0


def test_the_brackets_of_a_long_search_are_found_in_no_time():
    """Each epoch of a trial asks for the bracket of every other: of 4000 trials that took 16 s, one by one."""
    begun, three = time.process_time(), search(brackets=3, trials=4000)
    assert [three.bracket(number) for number in range(4000)].count(0) == pytest.approx(4000 * 9 / 17, abs=1)
    assert time.process_time() - begun < 2


def test_a_plan_can_say_where_trials_stop_and_what_that_costs():
    assert search().describe_stops(9) == ["stops at epochs 1 (11%), 3 (33%) of 9; one in 3 goes on"]
    assert search(brackets=3).describe_stops(9) == [
        "bracket 0, 53% of the trials: stops at epochs 1 (11%), 3 (33%) of 9; one in 3 goes on",
        "bracket 1, 29% of the trials: stops at epochs 3 (33%) of 9; one in 3 goes on",
        "bracket 2, 18% of the trials: never stops",
    ]
    assert search(stop="median", min_epochs=2).describe_stops(8) == [
        "stops from epoch 2 (25%) of 8 on: trials below the median of the finished trials' running means"
    ]
    assert search(stop="none").describe_stops(9) == []


def test_nobody_is_judged_at_a_rung_before_all_of_the_batch_are_there():
    asha = search(deterministic=True, batch=3, trials=4)
    level = [TrialSoFar({1: 0.3}), TrialSoFar({1: 0.2}), TrialSoFar({})]
    assert batch_verdicts(asha, 9, level) == [Verdict("waits"), Verdict("waits"), Verdict("trains")]
    assert batch_verdicts(asha, 9, level[:2]) == [Verdict("waits"), Verdict("waits")], "the third is not proposed yet"
    level[2] = TrialSoFar({1: 0.1})
    assert batch_verdicts(asha, 9, level) == [Verdict("trains"), Verdict("stopped", 1), Verdict("stopped", 1)]
    level[2] = TrialSoFar({}, "failed")
    assert batch_verdicts(asha, 9, level) == [Verdict("trains"), Verdict("stopped", 1), Verdict("ended")]
    level = [
        TrialSoFar({1: 0.3, 3: 0.3, 9: 0.3}, "finished"),
        TrialSoFar({1: 0.2}),
        TrialSoFar({1: 0.1}),
        TrialSoFar({1: 0.25}),
    ]
    # The fourth is a batch of its own: of four at the rung, two pass.
    assert batch_verdicts(asha, 9, level)[3] == Verdict("trains")
    # Another study finished its run; in this search it would have been stopped.
    level[1] = TrialSoFar({1: 0.2, 3: 0.9, 9: 0.9}, "finished")
    assert batch_verdicts(asha, 9, level)[1] == Verdict("stopped", 1)


@pytest.mark.parametrize("given", [{"brackets": 2, "eta": 2}, {"stop": "median"}, {"eta": 2}])
def test_whoever_trains_first_the_verdicts_are_the_same(given):
    deterministic = search(deterministic=True, batch=4, trials=14, min_epochs=2, **given)
    curves = [{epoch: random.Random(n).random() + epoch / 9 for epoch in range(1, 10)} for n in range(14)]
    results = set()
    for seed in range(20):
        chance, shown = random.Random(seed), [TrialSoFar({}) for _ in curves]
        for _ in itertools.count():
            begun = max((n for n, seen in enumerate(shown) if seen.curve), default=-1)
            last = (begun // 4 + 1) * 4 if begun >= 0 else 4
            verdicts = batch_verdicts(deterministic, 9, shown[:last])
            going = [n for n, verdict in enumerate(verdicts) if verdict.state == "trains"]
            if not going and last < 14:
                verdicts = batch_verdicts(deterministic, 9, shown[: last + 4])
                going = [n for n, verdict in enumerate(verdicts) if verdict.state == "trains"]
            if not going:
                break
            number = chance.choice(going)
            epoch = len(shown[number].curve) + 1
            shown[number] = TrialSoFar(
                {**shown[number].curve, epoch: curves[number][epoch]}, "finished" if epoch == 9 else ""
            )
        results.add(tuple(batch_verdicts(deterministic, 9, shown)))
    (found,) = results
    assert {verdict.state for verdict in found} == {"stopped", "ended"}
