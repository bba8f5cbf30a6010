"""Checks of a search space before training: each choice can be built, and some student keeps the limits."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

from ablations.study.plan import check_space, space, trial_config
from ablations.study.schema import Study
from ablations.study.search import Dimension
from ablations.study.variant_search import searches
from orchestrator.prepare.limits import LimitsCheck
from trainer.config import TrainConfig, UserError, located

Check = Callable[[TrainConfig], Mapping[str, float]]
"""Returns the cost of a config's deployed student; raises UserError where it cannot be built."""


def refuse_infeasible(study: Study, check: Check, limits_check: LimitsCheck) -> None:
    """Raise UserError where a search has a choice, or a range at both ends, that cannot be built with any other values,
    or where all students exceed a limit."""
    for arm, search in searches(study).items():
        with located(f"tune_each of {arm}") if arm else nullcontext():
            points = check_space(search)
            _refuse_unbuildable(search, points, check)
            _refuse_beyond(search, points[0], check, limits_check)


def _refuse_unbuildable(study: Study, points: list[dict[str, Any]], check: Check) -> None:
    dimensions = space(study)
    reasons = [_why_not(study, point, check) for point in points]
    good = [point for point, why in zip(points, reasons, strict=True) if not why]
    built = {_part(dimensions[path], path, point) for point in good for path in point}
    for point, why in zip(points, reasons, strict=True):
        idle = [
            path
            for path in (point if why else ())
            if _part(dimensions[path], path, point) not in built
            # two values may exclude each other; samplers learn that: try each with others
            and all(_why_not(study, {**other, path: point[path]}, check) for other in good if path in other)
        ]
        alone = {path: reason for path in idle if (reason := _why_not(study, {path: point[path]}, check))}
        if idle:
            path, why = next(iter(alone.items()), (", ".join(idle), why))
            value = f" {point[path]}" if path in point else ""
            raise UserError(f"{study.name}: search.space: {path}{value} can never be built: {why}")


def _part(dimension: Dimension, path: str, point: Mapping[str, Any]) -> tuple[str, str]:
    """The part of a dimension that a point tests: one choice, or the whole range, whose inner values may build."""
    return path, point[path] if dimension.kind == "choice" else ""


def _why_not(study: Study, point: Mapping[str, Any], check: Check) -> str:
    """Why a proposal cannot be built; empty if it can."""
    try:
        check(trial_config(study, point))
    except UserError as error:
        return str(error)
    return ""


def _refuse_beyond(study: Study, point: Mapping[str, Any], check: Check, limits_check: LimitsCheck) -> None:
    """Raise UserError where no choice of the student keeps the limits; `point` has the other proposed values."""
    chosen = {
        path: dimension.choices
        for path, dimension in space(study).items()
        if dimension.kind == "choice" and path.startswith("student")
    }
    if not study.limits.given or not chosen:
        return
    configs, costs = {}, {}
    for labels in itertools.product(*chosen.values()):
        name = ", ".join(labels)
        try:
            config = trial_config(study, {**point, **dict(zip(chosen, labels, strict=True))})
            cost = check(config)
        except UserError:
            return  # with other values it may build and keep the limits
        try:
            limits_check.refuse({name: config}, {name: cost})
        except UserError:
            configs[name], costs[name] = config, cost
        else:
            return
    with located(study.name):
        limits_check.refuse(configs, costs)
