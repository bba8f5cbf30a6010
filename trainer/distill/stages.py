"""What paths that work stage by stage check before they build: geometry, stage weights, numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from trainer.config import UserError
from trainer.models.base import Channels


def check_strides(student: Channels, teacher: Channels) -> None:
    """Raises UserError unless both networks have the same stages: maps of unequal size are not compared."""
    if student.strides != teacher.strides:
        raise UserError(
            f"the stages of student and teacher must have equal strides but got {student.strides} and "
            f"{teacher.strides}; choose another student or teacher"
        )


def check_weights(weights: Any, stages: int) -> tuple[float, ...]:
    """Stage weights as floats. Raises UserError unless one finite number >= 0 a stage, at least one of them above 0."""
    values = check_numbers("stage_weights", weights, stages)
    if min(values) < 0 or max(values) == 0:
        raise UserError(
            f"stage_weights must be at least 0 and one of them above 0 but got {list(values)}; "
            "to drop the whole path, remove it from `distill`"
        )
    return values


def check_numbers(name: str, values: Any, count: int) -> tuple[float, ...]:
    """`count` floats. Raises UserError naming the option unless `values` is a list of so many finite numbers."""
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


def check_count(name: str, value: Any) -> int:
    """An int. Raises UserError naming the option unless `value` is a whole number of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{name} must be a whole number of at least 1 but got {value!r}")
    return value


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
