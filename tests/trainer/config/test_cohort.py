"""Which runs may train side by side: those that see equal batches, and need one teacher at most."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from trainer.config import TrainConfig, UserError, check_cohort, cohort_key, override, parse

BASE: dict[str, Any] = {
    "data": {"name": "scenes", "size": [64, 128]},
    "student": {"name": "segformer_tiny"},
    "teacher": {"name": "segformer_mini", "train": {"epochs": 2}},
    "optim": {"epochs": 2, "global_batch": 4, "norm_batch": 2},
    "distill": {"pea": {}},
}


def changed(**changes: Any) -> TrainConfig:
    """changed(optim__lr=1.0) -> the base with optim.lr 1."""
    return parse(override(BASE, {name.replace("__", "."): value for name, value in changes.items()}))


TOGETHER = {
    "other paths": {"distill": {"csf": {}, "kd": {"weight": 2.0}}},
    "another student": {"student__name": "pvtv2_b0"},
    "another optimiser": {"optim__lr": 1.0, "optim__epochs": 7, "optim__schedule": "reference", "optim__norm_batch": 4},
    "another validation": {"eval__protocols": ["paper"], "eval__every": 3},
    "class weights": {"data__class_weights": "auto"},
    "a stated mIoU": {"teacher": {"name": "segformer_mini", "train": {"epochs": 2}, "miou": 50.0}},
    "a student alone": {"teacher": None, "distill": {}},
    "a student alone of another precision": {"distill": {}, "optim__precision": "bf16"},
    "a path of weight 0": {"distill": {"csf": {"weight": 0}}, "teacher": {"name": "segformer_b2", "checkpoint": "x"}},
}
APART = {
    "seed": ({"seed": 1}, "seed is 1 there and 0 in first.yaml"),
    "batch": ({"optim__global_batch": 8}, "optim.global_batch is 8 there and 4 in first.yaml"),
    "size": ({"data__size": [64, 64]}, "data.size is "),
    "held-out share": ({"data__select": 0.25}, "data.select is 0.25 there"),
    "teacher": ({"teacher__name": "segformer_b2"}, "teacher.name is segformer_b2 there and segformer_mini in"),
    "recipe": ({"teacher__train": {"epochs": 3}}, "teacher.train.epochs is 3 there"),
    "precision": ({"optim__precision": "bf16"}, "teacher.precision is bf16 there and fp32 in first.yaml"),
}


@pytest.mark.parametrize("changes", TOGETHER.values(), ids=TOGETHER)
def test_what_may_differ(changes: dict[str, Any]) -> None:
    first, second = changed(), changed(**changes)
    assert first.key != second.key
    assert cohort_key(first).fits(cohort_key(second)) and cohort_key(second).fits(cohort_key(first))
    check_cohort([first, second], ["first.yaml", "second.yaml"])
    check_cohort([second, first], ["second.yaml", "first.yaml"])


@pytest.mark.parametrize(("changes", "told"), APART.values(), ids=APART)
def test_what_may_not_differ(changes: dict[str, Any], told: str) -> None:
    first, second = changed(), changed(**changes)
    assert not cohort_key(first).fits(cohort_key(second)) and not cohort_key(second).fits(cohort_key(first))
    with pytest.raises(UserError, match=r"^second.yaml cannot train side by side with first.yaml, for ") as refused:
        check_cohort([first, second], ["first.yaml", "second.yaml"])
    assert told in str(refused.value)


def test_students_of_two_precisions_may_have_one_teacher_of_a_precision_of_its_own() -> None:
    first, second = changed(optim__precision="bf16"), changed(teacher__precision="bf16")
    assert cohort_key(first).fits(cohort_key(second))
    check_cohort([first, second], ["first.yaml", "second.yaml"])


def test_all_that_may_differ_may_differ_at_once() -> None:
    configs = [changed(), *(changed(**changes) for changes in TOGETHER.values())]
    check_cohort(configs, [str(position) for position in range(len(configs))])
    assert all(one.fits(other) for one, other in pairwise(map(cohort_key, configs)))


def test_two_teachers_beside_a_student_alone_are_still_two() -> None:
    alone, one, other = changed(teacher=None, distill={}), changed(), changed(teacher__name="segformer_b2")
    with pytest.raises(UserError, match=r"third cannot train side by side with second, for teacher.name is"):
        check_cohort([alone, one, other], ["first", "second", "third"])


def test_a_recipes_teacher_is_named_by_its_weights() -> None:
    one, other = cohort_key(changed(), "run 1"), cohort_key(changed(), "run 2")
    assert one.fits(cohort_key(changed(), "run 1")) and not one.fits(other)
