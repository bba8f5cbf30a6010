"""Checks of the options of knowledge paths: strides, stages and their weights, numbers, names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from trainer.config import UserError
from trainer.models.base import Channels


def check_strides(student: Channels, teacher: Channels) -> None:
    """Raises UserError unless both networks have equal strides: only maps of equal size are compared."""
    if student.strides != teacher.strides:
        raise UserError(
            f"the stages of student and teacher must have equal strides but got {student.strides} and "
            f"{teacher.strides}; choose another student or teacher"
        )


def check_weights(weights: Any, stages: int) -> tuple[float, ...]:
    """Stage weights as floats. Raises UserError unless there is one finite number >= 0 per stage, and one above 0."""
    values = check_numbers("stage_weights", weights, stages)
    if min(values) < 0 or max(values) == 0:
        raise UserError(
            f"stage_weights must be at least 0 and one of them above 0 but got {list(values)}; "
            "to drop the whole path, remove it from `distill`"
        )
    return values


def check_numbers(name: str, values: Any, count: int) -> tuple[float, ...]:
    """`count` floats. Raises UserError naming the option unless `values` is a list of `count` finite numbers."""
    listed = isinstance(values, Sequence) and not isinstance(values, str)
    if not listed or len(values) != count or not all(_finite(value) for value in values):
        example = ", ".join(["0.5"] * count)
        raise UserError(f"{name} must be a list of {count} finite numbers but got {values!r}; write [{example}]")
    return tuple(float(value) for value in values)


def check_number(name: str, value: Any) -> float:
    """A float. Raises UserError naming the option unless `value` is a finite number."""
    if not _finite(value):
        raise UserError(f"{name} must be a finite number but got {value!r}; write one such as 0.5")
    return float(value)


def check_positive(name: str, value: Any) -> float:
    """A float. Raises UserError naming the option unless `value` is a finite number above 0."""
    if not _finite(value) or value <= 0:
        raise UserError(f"{name} must be a finite number above 0 but got {value!r}; write one such as 1.0")
    return float(value)


def check_stage(name: str, value: Any, stages: int) -> int:
    """The 0-based index of a stage that users count from 1. Raises UserError unless 1 <= `value` <= stages."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= stages:
        raise UserError(f"{name} must be a stage, 1 (shallowest) to {stages}, but got {value!r}")
    return value - 1


def check_stages(name: str, values: Any, stages: int) -> tuple[int, ...]:
    """0-based indices, shallow to deep. Raises UserError unless `values` is a list of distinct stages, from 1."""
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise UserError(f"{name} must be a list of stages, 1 (shallowest) to {stages}, but got {values!r}")
    chosen = sorted(check_stage(f"each of {name}", value, stages) for value in values)
    if len(set(chosen)) < len(chosen):
        raise UserError(f"{name} must name each stage at most once but got {list(values)}")
    return tuple(chosen)


def check_choice(name: str, value: Any, choices: Iterable[str]) -> str:
    """`value`. Raises UserError naming the option unless it is one of `choices`."""
    listed = tuple(choices)  # a YAML value may be unhashable
    if value not in listed:
        raise UserError(f"{name} must be one of {', '.join(listed)} but got {value!r}")
    return value


def check_count(name: str, value: Any) -> int:
    """An int. Raises UserError naming the option unless `value` is a whole number of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{name} must be a whole number of at least 1 but got {value!r}")
    return value


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
