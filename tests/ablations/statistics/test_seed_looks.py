"""Seeds that are added until the contrasts are decided: which are due, what is said, and how often it is wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ablations.statistics.outcome import Outcome
from ablations.statistics.paired import interval
from ablations.statistics.seed_looks import due, if_needed, look_progress, take_looks, with_intervals
from ablations.statistics.verdicts import study_verdicts
from ablations.study.plan import expand
from ablations.table.arms import build_table

ARMS = """
variants: {alone: {distill: {}}, Base: {}, Other: {distill.pea: null}}
seeds: {looks: [6, 8, 12], until: decided}
"""
FOUR = """
variants: {z: {}, a: {optim.lr: 0.1}, b: {optim.lr: 0.2}, c: {optim.lr: 0.3}}
seeds: {looks: [6, 8, 12]}
"""


STUDIES = 400


def _outcomes(runs, score, seeds=12):
    ended = [run for run in runs if run.role == "teacher" or run.seed < seeds]
    return {run.key: Outcome("finished", {"val/miou": score(run)}) for run in ended}


def _score(run):
    """Other is far above alone; Base is like it, but for noise that has a sign."""
    wobble = 0.1 * (-1) ** run.seed * (1 + run.seed % 5)
    return 50.0 + {"Other": 5.0, "Base": wobble}.get(run.arm, 0.0)


def _seeds(runs, arm):
    return sorted(run.seed for run in runs if run.arm == arm)


def test_the_first_look_is_due_before_anything_has_run(study):
    written = study(ARMS)
    runs = expand(written)
    now = due(written, runs, {})
    assert [_seeds(now, arm) for arm in ("alone", "Base", "Other")] == [list(range(6))] * 3
    assert {run.role for run in now} == {"teacher", "arm"}
    assert [run for run in runs if not if_needed(written, run)] == now


def test_a_fixed_study_is_due_whole_and_waits_for_nothing(study):
    written = study(ARMS.replace("{looks: [6, 8, 12], until: decided}", "3"))
    runs = expand(written)
    assert due(written, runs, {}) == runs
    assert not any(if_needed(written, run) for run in runs)


def test_undecided_contrasts_go_on_with_their_reference_and_decided_ones_stop(study):
    written = study(ARMS)
    runs = expand(written)
    came = [look_progress(written, runs, _outcomes(runs, _score, seeds)) for seeds in (6, 8, 12)]
    assert [one.look for one in came] == [8, 12, 12]
    assert [one.due for one in came] == [
        {"alone": 8, "Base": 8, "Other": 8},
        {"alone": 12, "Base": 12, "Other": 8},
        {"alone": 12, "Base": 12, "Other": 8},
    ]
    base, other = came[-1].comparisons
    assert (base.verdict, base.n, other.verdict, other.n) == ("undecided", 12, "better", 8)
    assert [len(one.pending) for one in came] == [2, 1, 0]


def test_no_verdict_in_the_middle_of_a_look(study):
    written = study(ARMS)
    runs = expand(written)
    outcomes = _outcomes(runs, _score, 8)
    last = next(run for run in runs if (run.arm, run.seed) == ("Base", 7))
    outcomes[last.key] = Outcome("running", {"val/miou": 99.0})
    came = look_progress(written, runs, outcomes)
    assert came.pending == {("Base", "alone"), ("Other", "alone")}
    assert all(one.verdict == "undecided" for one in came.comparisons)
    assert came.due == {"alone": 8, "Base": 8, "Other": 8}


def test_seeds_beyond_a_look_that_has_not_ended_are_not_read(study):
    """They may be there from another study of the same arms."""
    written = study(ARMS)
    runs = expand(written)
    outcomes = _outcomes(runs, _score)
    lacking = [run.key for run in runs if (run.arm, run.seed) == ("alone", 5)]
    came = look_progress(written, runs, {key: outcome for key, outcome in outcomes.items() if key not in lacking})
    assert came.look == 6
    assert [(one.n, one.verdict, one.p) for one in came.comparisons] == [(5, "undecided", 1.0)] * 2


def test_an_arm_without_a_contrast_has_the_first_look_alone_and_one_without_runs_has_no_pairs(study):
    written = study(ARMS + "contrasts: [[Base, alone]]\n")
    arms = {"alone": range(12), "Base": range(12)}
    assert take_looks(written, arms, {}).due == {"alone": 6, "Base": 6, "Other": 6}
    runs = expand(written)
    assert take_looks(written, arms, {"alone": {run.seed: 1.0 for run in runs}}).comparisons[0].n == 0
    assert look_progress(written, runs, _outcomes(runs, _score)).due == {"alone": 12, "Base": 12, "Other": 6}


def test_a_failed_seed_ends_its_look_and_an_arm_that_always_fails_gets_no_more(study):
    written = study(ARMS)
    runs = expand(written)
    outcomes = _outcomes(runs, _score)
    for run in runs:
        if run.arm == "Base" or (run.arm == "Other" and run.seed == 3):
            outcomes[run.key] = Outcome("failed", reason="a bug")
    came = look_progress(written, runs, outcomes)
    assert came.due == {"alone": 8, "Base": 6, "Other": 8}
    assert [(one.verdict, one.n) for one in came.comparisons] == [("undecided", 0), ("better", 7)]
    assert not came.pending


def test_what_is_known_later_changes_no_earlier_look(study):
    written = study(ARMS + "margin: 0.2\n")
    runs = expand(written)
    whole = _outcomes(runs, _score)
    once = look_progress(written, runs, whole)
    assert [one.verdict for one in once.comparisons] == ["undecided", "better"]
    stood = {run.key for run in due(written, runs, whole)}
    again = look_progress(written, runs, {key: outcome for key, outcome in whole.items() if key in stood})
    assert again == once


def test_the_table_has_no_trace_of_seeds_that_were_not_needed(study):
    written = study(ARMS)
    runs = expand(written)
    outcomes = {run.key: _outcomes([run], _score)[run.key] for run in due(written, runs, _outcomes(runs, _score))}
    table = build_table(written, runs, outcomes)
    assert [row.cells[1] for row in table.rows] == ["1", "12", "12", "8"]
    assert [row.values.get("verdict") for row in table.rows[2:]] == ["undecided", "better"]
    assert not any("not yet" in note or "not finished" in note for note in (*table.notes, *table.explained))
    assert "6 to 12 seeds as needed" in table.title
    assert any(
        note.startswith("The study ended at its look at 12 seeds, and 4 runs were not") for note in table.explained
    )
    assert any(
        note.startswith("Looks at 6, 8, 12 seeds, 2 contrasts: a difference can be decided from 8")
        for note in table.explained
    )
    assert len(study_verdicts(written, runs, outcomes).runs) == 1 + 12 + 12 + 8


def test_a_table_between_looks_says_so(study):
    written = study(ARMS)
    runs = expand(written)
    table = build_table(written, runs, _outcomes(runs, _score, 8))
    assert [row.cells[1] for row in table.rows] == ["1", "8/12", "8/12", "8"]
    assert [row.values.get("verdict") for row in table.rows[2:]] == ["not yet", "better"]
    assert any(note.startswith("The study is at its look at 12 seeds") for note in table.explained)


def test_an_equivalence_ends_a_contrast_too(study):
    written = study(ARMS + "margin: 2.0\n")
    runs = expand(written)
    came = look_progress(written, runs, _outcomes(runs, _score))
    assert [(one.verdict, one.n) for one in came.comparisons] == [("equivalent", 6), ("better", 8)]


def _simulated(written, draw, studies):
    """Courses of simulated studies: `draw(arm)` gives the twelve scores of an arm."""
    arms = list(written.compared.overrides)
    for _ in range(studies):
        yield take_looks(written, dict.fromkeys(arms, range(12)), {arm: dict(enumerate(draw(arm))) for arm in arms})


def _at_most_five_percent(false, studies):
    return 0 < false / studies <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)


@pytest.mark.slow
@pytest.mark.parametrize("draw", ["standard_normal", "standard_cauchy", "standard_exponential"])
def test_at_most_five_percent_of_studies_hold_a_false_difference(study, draw):
    """Arms like their shared reference, whatever the shape of the seeds, looks and stopping included."""
    rng = np.random.default_rng(2013)
    found = _simulated(study(FOUR), lambda _: getattr(rng, draw)(12), STUDIES)
    false = sum(any(one.verdict != "undecided" for one in came.comparisons) for came in found)
    assert _at_most_five_percent(false, STUDIES)


@pytest.mark.slow
def test_at_most_five_percent_of_studies_hold_a_false_equivalence(study):
    """Every arm exactly a margin above the reference, where `equivalent` is wrong and most tempting."""
    rng = np.random.default_rng(1987)
    written = study(FOUR + "margin: 0.3\n")
    found = _simulated(written, lambda arm: rng.normal(0.3 * (arm != "z"), 0.07, 12), STUDIES)
    false = sum(any(one.verdict == "equivalent" for one in came.comparisons) for came in found)
    assert _at_most_five_percent(false, STUDIES)


def test_a_large_difference_is_found_early_and_a_third_of_the_runs_is_saved(study):
    rng = np.random.default_rng(3)
    found = list(_simulated(study(FOUR), lambda arm: rng.normal(3.0 * (arm != "z"), 0.7, 12), 60))
    decided = [one.verdict == "better" for came in found for one in came.comparisons]
    assert np.mean(decided) > 0.98
    assert np.mean([sum(came.due.values()) / 48 for came in found]) < 0.72


ONE = """
variants: {z: {}, a: {optim.lr: 0.1}}
seeds: {looks: [6, 8, 12]}
"""


def _intervals(written, rng, mean, studies):
    """(progress, intervals) of simulated studies whose arms are `mean` above z."""
    arms = list(written.compared.overrides)
    for _ in range(studies):
        scores = {arm: dict(enumerate(rng.normal(mean * (arm != "z"), 0.7, 12))) for arm in arms}
        progress = take_looks(written, dict.fromkeys(arms, range(12)), scores)
        yield progress, with_intervals(written, scores, progress)


@pytest.mark.slow
@pytest.mark.parametrize("rest", [ONE, FOUR, FOUR + "margin: 0.4\n"])
def test_after_looks_too_a_row_is_better_if_and_only_if_its_interval_excludes_zero(study, rest):
    written = study(rest)
    for mean in (0.0, 0.7, 1.5):
        for _, found in _intervals(written, np.random.default_rng(1), mean, 4):
            for one in found:
                if one.verdict == "equivalent":
                    assert -0.4 < one.low <= one.high < 0.4
                else:
                    assert (one.low > 0) == (one.verdict == "better")
                    assert (one.high < 0) == (one.verdict == "worse")


def test_a_look_that_has_not_ended_has_no_interval(study):
    written = study(ONE)
    scores = {"z": dict.fromkeys(range(6), 0.0), "a": {0: 1.0, 1: 2.0, 2: 3.0}}
    ended = {"z": range(6), "a": range(3)}
    (found,) = with_intervals(written, scores, take_looks(written, ended, scores))
    assert (found.n, math.isnan(found.low)) == (3, True)


@pytest.mark.slow
def test_intervals_after_early_looks_cover_the_true_difference(study):
    """Where half of the studies stop early, Student's interval covers too little, and the one shown does not."""
    rng, mean, studies = np.random.default_rng(28), 1.2, 600
    covered, covered_by_t, early = 0, 0, 0
    for progress, (one,) in _intervals(study(ONE), rng, mean, studies):
        low, high = interval(np.array(one.differences))
        covered += one.low <= mean <= one.high
        covered_by_t += low <= mean <= high
        early += progress.look < 12
    assert early > studies / 4
    assert covered / studies >= 0.95 - 2 * math.sqrt(0.05 * 0.95 / studies)
    assert covered_by_t / studies < 0.94
