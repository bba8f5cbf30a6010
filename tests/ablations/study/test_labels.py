"""Labels: no two runs of different settings share one, or the study is refused."""

from __future__ import annotations

import re

import pytest

from ablations.study.plan import by_arm, expand
from ablations.study.schema import read
from trainer.config import UserError

RECIPES = {
    "one recipe": ("{a: {}, b: {distill.pea: null}}", ["teacher segformer_mini"]),
    "two networks": ("{a: {}, b: {teacher.name: pvtv2_mini}}", ["teacher segformer_mini", "teacher pvtv2_mini"]),
    "epochs": (
        "{a: {}, b: {teacher.train.epochs: 6}}",
        ["teacher segformer_mini, epochs=3", "teacher segformer_mini, epochs=6"],
    ),
    "two settings": (
        "{a: {teacher.train.seed: 1}, b: {teacher.train.lr: 0.1}}",
        ["teacher segformer_mini, lr=0.001, seed=1", "teacher segformer_mini, lr=0.1, seed=0"],
    ),
    "weights to start from": (
        "{a: {}, b: {teacher.train.init: mit.pth}}",
        ["teacher segformer_mini, init=scratch", "teacher segformer_mini, init=mit.pth"],
    ),
    "data": (
        "{a: {}, b: {data.size: [32, 64]}}",
        ["teacher segformer_mini, data.size=[96, 192]", "teacher segformer_mini, data.size=[32, 64]"],
    ),
    "an option that one lacks": (
        "{a: {}, b: {data.options: {train: 32}}}",
        ["teacher segformer_mini, data.train=default", "teacher segformer_mini, data.train=32"],
    ),
}


@pytest.mark.parametrize("case", RECIPES)
def test_teachers_of_one_network_are_told_apart_by_what_differs(study, case):
    variants, labels = RECIPES[case]
    runs = expand(study(f"variants: {variants}"))
    assert [run.arm for run in runs if run.role == "teacher"] == labels
    for group in by_arm(runs).values():
        assert len({run.config.model_copy(update={"seed": 0}).key for run in group}) == 1


def test_settings_that_read_alike_after_rounding_are_told_apart_by_the_key(study):
    runs = expand(study("variants: {a: {teacher.train.lr: 0.1}, b: {teacher.train.lr: 0.10000001}}"))
    teachers = [run for run in runs if run.role == "teacher"]
    assert [run.arm for run in teachers] == [f"teacher segformer_mini, lr=0.1 ({run.key})" for run in teachers]


REFUSED = {
    "an arm called as a teacher": (
        "variants: {a: {}, teacher segformer_mini: {distill.pea: null}}",
        "written: arm 'teacher segformer_mini' has the name of the run that trains its teacher; rename the arm",
    ),
    "white space": ('variants: {a b: {}, "a  b": {distill.pea: null}}', "got 'a b' and 'a  b'; rename one"),
    "a blank name": ('variants: {a: {}, " ": {distill.pea: null}}', "variants: a name must not be blank"),
    "white space of a leave-one-out arm": (
        'variants: {both: {}, "both  without csf": {optim.lr: 0.1}}\nleave_one_out: distill',
        "names must differ in more than white space",
    ),
    "values that round to one label": (
        "factors: {optim.lr: [0.1, 0.10000001]}",
        "0.1 and 0.10000001 are both shown as '0.1'; remove one, or name the values",
    ),
    "names of values that differ in white space": (
        'factors: {optim.lr: {low: 0.1, "low ": 0.2}}',
        "names must differ in more than white space",
    ),
    "signs that fonts show alike": (
        "variants: {\u00b5: {}, \u03bc: {distill.pea: null}}",
        "names must be told apart by eye, but got '\\xb5' and '\\u03bc'",
    ),
    "a choice of such a sign": (
        "search: {trials: 1, space: {optim.lr: {choice: {\u00b5: 0.1, \u03bc: 0.2}}}}",
        "names must be told apart by eye",
    ),
    "a blank at the end of a reference": ('variants: {a: {}}\nreference: "a "', "must not begin or end with a blank"),
    "a reference in two lines": (
        'variants: {a: {}}\nreference: "a\\tb"',
        "reference: a name must be one line of printable",
    ),
    "a factor's value that nobody sees": ('factors: {optim.lr: {"\\u2800": 0.1}}', "U+2800 (BRAILLE PATTERN BLANK)"),
    "points of one name": (
        'factors: {optim.lr: {"1": 0.1, "1, epochs=2": 0.2}, optim.epochs: {"2, epochs=2": 3, "2": 4}}',
        "two points would both be called 'lr=1, epochs=2, epochs=2'",
    ),
    "the published teacher": (
        "variants: {a: {}, teacher: {distill.pea: null}}\npublished: {source: s, protocol: full, a: 1.0, teacher: 2.0}",
        "variants.teacher: `published` uses this name",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_labels_that_a_table_would_show_alike_are_refused(study, case):
    rest, message = REFUSED[case]
    with pytest.raises(UserError, match=re.escape(message)):
        expand(study(rest))


def test_an_arm_called_as_a_trial_of_another_is_refused(study):
    tuned = (
        "tune_each: {trials: 2, space: {optim.lr: {log: [1.0e-4, 1.0e-2]}}}\n"
        "variants: {a: {}, a trial 1: {distill.pea: null}}"
    )
    with pytest.raises(UserError, match=r"variants\.a trial 1: trials of 'a' are called 'a trial 0', 'a trial 1'"):
        study(tuned, data=", select: 0.1")


def test_a_recorded_study_keeps_the_names_that_were_allowed_when_it_ran():
    text = (
        "name: x\nbase: {student: {name: segformer_tiny}}\nvariants: {' a': {}, \u00b5: {}, \u03bc: {}, e\u0301: {}}\n"
    )
    assert list(read(text, "ledger", recorded=True).compared.overrides) == [" a", "\u00b5", "\u03bc", "e\u0301"]
    with pytest.raises(UserError, match="must not begin or end with a blank"):
        read(text, "x.yaml")
