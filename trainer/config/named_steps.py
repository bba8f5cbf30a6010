"""Steps of a list, such as data.augment, by name: dotted paths reach them as they reach the keys of a mapping."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from trainer.config.errors import UserError, unknown


def step_names(steps: list[Any]) -> list[str]:
    """The names of steps written `NAME`, `{NAME: OPTIONS}` or `{name: NAME, options: OPTIONS}`; others have none."""
    return [name for step in steps if (name := _name_of(step))]


def assign_step(steps: list[Any], rest: list[str], value: Any, path: str, *, absent_ok: bool) -> None:
    """Set or remove a step, or an option of it, in place. `rest` is what of `path` follows the list: [NAME] or
    [NAME, OPTION]. None removes. Raises UserError where the list has no such step: it would have no place in the order.
    """
    name, *option = rest
    if len(option) > 1:
        raise UserError(f"{path}: a step has options only; write {'.'.join(path.split('.')[: -len(option)])}.OPTION")
    place = next((i for i, step in enumerate(steps) if _name_of(step) == name), None)
    if place is None:
        if value is None and absent_ok:
            return
        said = unknown("step", name, step_names(steps))
        where = path.removesuffix(f".{'.'.join(rest)}")
        raise UserError(f"{path}: {said}; steps have an order, so to add one write the whole list {where}")
    if not option:
        steps[place : place + 1] = [] if value is None else [{name: copy.deepcopy(value)}]
        return
    options = _options_of(steps[place])
    if value is not None:
        options[option[0]] = copy.deepcopy(value)
    elif options.pop(option[0], None) is None and not absent_ok:
        raise UserError(f"{path}: nothing to remove; {unknown('option', option[0], options)}")
    steps[place] = {name: options}


def _name_of(step: Any) -> str | None:
    if isinstance(step, Mapping):
        return step.get("name") or (next(iter(step)) if len(step) == 1 else None)
    return step if isinstance(step, str) else None


def _options_of(step: Any) -> dict[str, Any]:
    if isinstance(step, str):
        return {}
    given = step.get("options") if "name" in step else next(iter(step.values()))
    return dict(given or {})
