"""Several teachers in a study: which runs they train, what is tested, and how often the test is wrong."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ablations.statistics.blocks import observations, seeds_per_block, teachers_are_blocks
from ablations.statistics.design import design_lines
from ablations.statistics.outcome import Outcome
from ablations.statistics.sign_flip import sign_flip_p
from ablations.statistics.verdicts import study_verdicts
from ablations.study.plan import expand
from ablations.table.arms import build_table
from trainer.config import UserError

ARMS = "variants: {alone: {distill: {}}, Base: {}}\n"


def outcomes_of(runs, score):
    return {run.key: Outcome("finished", {"val/miou": score(run)}) for run in runs}


def test_seeds_take_the_teachers_in_turn_and_the_first_is_that_of_a_study_with_one(study):
    one, three = (expand(study(f"{ARMS}seeds: 6\nteachers: {count}")) for count in (1, 3))
    teachers = [run for run in three if run.role == "teacher"]
    assert [run.label for run in teachers] == [f"teacher segformer_mini seed {k}" for k in range(3)]
    taught = [run for run in three if run.arm == "Base"]
    assert [run.needs for run in taught] == [teachers[k].key for k in (0, 1, 2, 0, 1, 2)]
    assert {run.key for run in one if run.arm in ("alone", "teacher segformer_mini")} <= {run.key for run in three}
    assert [run.key in {other.key for other in one} for run in taught] == [True, False, False, True, False, False]


def test_two_recipes_have_a_row_each(study):
    rest = "variants: {alone: {distill: {}}, Base: {}, other: {teacher.name: segformer_b0}}\nseeds: 2\nteachers: 2"
    teachers = [run.label for run in expand(study(rest)) if run.role == "teacher"]
    assert teachers == [f"teacher {name} seed {k}" for k in range(2) for name in ("segformer_mini", "segformer_b0")]


@pytest.mark.parametrize(
    ("seeds", "teachers", "general", "each"),
    [(12, 1, False, 1), (12, 3, False, 1), (12, 6, True, 2), (12, 12, True, 1), (3, 3, True, 1)],
)
def test_whole_teachers_are_tested_where_they_can_decide(study, seeds, teachers, general, each):
    written = study(f"{ARMS}seeds: {seeds}\nteachers: {teachers}")
    assert teachers_are_blocks(written) == general
    assert seeds_per_block(written) == each


def test_the_verdict_is_the_sign_flip_test_of_the_means_of_teachers(study):
    written = study(f"{ARMS}seeds: 12\nteachers: 6")
    runs = expand(written)
    gains = [1.0, 2.0, 3.0, -0.5, 1.5, 2.5, 1.2, 2.1, 2.8, -0.4, 1.0, 2.0]  # seeds 3 and 9 have the same teacher
    outcomes = outcomes_of(runs, lambda run: 50.0 + gains[run.seed] * (run.arm == "Base"))
    (found,) = study_verdicts(written, runs, outcomes).contrasts
    means = [(gains[k] + gains[k + 6]) / 2 for k in range(6)]
    sums = [
        abs(sum(s * d for s, d in zip(signs, means, strict=True))) for signs in itertools.product((1, -1), repeat=6)
    ]
    assert found.found.p == pytest.approx(np.mean([total >= abs(sum(means)) - 1e-9 for total in sums]))
    assert found.found.n == 6
    assert found.found.difference == pytest.approx(np.mean(gains))
    table = build_table(written, runs, outcomes)
    assert table.rows[0].cells[:2] == ("teacher segformer_mini", "6")
    assert not any("conditional" in note for note in table.explained)
    assert any("averaged for each teacher" in note for note in table.explained)


def test_a_failed_seed_leaves_its_teacher_the_others(study):
    written = study(f"{ARMS}seeds: 12\nteachers: 6")
    assert observations(written, {0: 1.0, 6: 3.0, 7: 5.0}).tolist() == [2.0, 5.0]


def test_too_few_teachers_are_named_in_what_is_explained(study):
    written = study(f"{ARMS}seeds: 12\nteachers: 3")
    runs = expand(written)
    table = build_table(written, runs, outcomes_of(runs, lambda run: 50.0 + run.seed))
    assert any("conditional on these 3 teachers" in note and "6 teachers or more" in note for note in table.explained)
    assert "3 teachers," in table.title
    assert design_lines(written)[-2:] == [
        "3 teachers with 4 seeds each: verdicts hold for these 3 teachers only",
        "teachers by their number, what they cost, and whether verdicts hold for all or for these: "
        "1 (3 epochs, these), 2 (6 epochs, these), 3 (9 epochs, these), 4 (12 epochs, these), "
        "6 (18 epochs, all), 12 (36 epochs, all)",
    ]


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ("seeds: 6\nteachers: 4", "teachers: each must have as many of the 6 seeds, but got 4; give one of 2, 3, 6"),
        ("seeds: 1\nteachers: 2", "each must have as many of the 1 seeds, but got 2; give more seeds"),
        ("seeds: 6\nteachers: 0", "teachers: .*greater than or equal to 1"),
        ("seeds: {looks: [6, 8]}\nteachers: 2", "teachers: seeds with looks has one teacher, but got 2"),
    ],
)
def test_what_cannot_be_dealt_out_is_refused(study, rest, said):
    with pytest.raises(UserError, match=said):
        study(ARMS + rest)


@pytest.mark.parametrize(
    ("variants", "said"),
    [
        ("{alone: {distill: {}}, wide: {distill: {}, optim.lr: 2.0e-3}}", "teachers: no arm has a teacher"),
        ("{A: {}, B: {teacher: {name: segformer_b0, checkpoint: b.pt}}}", "teacher of B is a checkpoint .b.pt"),
        ("{A: {}, B: {teacher.train.seed: 7}}", r"teacher\.train\.seed, which arms must share, but got \[0, 7\]"),
    ],
)
def test_teachers_that_cannot_be_trained_are_refused(study, variants, said):
    with pytest.raises(UserError, match=said):
        expand(study(f"variants: {variants}\nseeds: 6\nteachers: 3"))


def test_whole_teachers_keep_the_error_rate_that_seeds_exceed():
    """2000 studies of 12 seeds and 6 teachers, each of which shifts the difference by a draw of mean 0."""
    rng = np.random.default_rng(0)
    of_teacher = rng.standard_normal((2000, 6, 1))
    d = of_teacher + 0.5 * rng.standard_normal((2000, 6, 2))
    by_teacher = np.mean([sign_flip_p(study.mean(axis=1)) <= 0.05 for study in d])
    by_seed = np.mean([sign_flip_p(study.ravel()) <= 0.05 for study in d])
    assert by_teacher == pytest.approx(2 / 2**6, abs=0.012)  # its level: four standard errors at most from it
    assert by_seed > 0.1
