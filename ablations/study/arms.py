"""Arms: what a study compares, as labels and overrides of its base, and how values are written in labels."""

from __future__ import annotations

import itertools
import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from trainer.config import Name, UserError, removable, step_names, unknown

Overrides = dict[Name, Any]
"""Dotted path -> value: {"optim.lr": 1.0e-3, "distill.pea": None}."""


MAX_POINTS = 10_000
"""Of a grid: a plan of more runs would take minutes to write out, and years to train."""


MOST_SHOWN = 10**15


class Arms(NamedTuple):
    """The arms of a study (label -> overrides) in their order, and the number of grid points that were left out."""

    overrides: dict[str, Overrides]
    left_out: int


def terms(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, float]:
    """The knowledge paths and their weights after `values` override the base, and the task losses as `loss.NAME`;
    malformed entries are ignored."""
    losses = _summands("loss", base.get("loss", {"ce": {}}), values)
    return _summands("distill", base.get("distill"), values) | {f"loss.{name}": w for name, w in losses.items()}


def _summands(section: str, default: Any, values: Mapping[str, Any]) -> dict[str, float]:
    given = values.get(section, default)
    whole = dict(given) if isinstance(given, dict) else {}
    inside = {path: value for path, value in values.items() if path.startswith(f"{section}.")}
    whole |= {path.split(".")[1]: value for path, value in inside.items() if path.count(".") == 1}
    found = {
        name: term.get("weight", 1.0) if isinstance(term, dict) else 1.0
        for name, term in whole.items()
        if term is not None
    }
    return found | {name: values[key] for name in found if (key := f"{section}.{name}.weight") in values}


def value_at(data: Any, path: str) -> Any:
    """The value at a dotted path of nested mappings, or None."""
    for part in path.split("."):
        data = data.get(part) if isinstance(data, dict) else None
    return data


def mentioned(base: Mapping[str, Any], changes: Sequence[Overrides]) -> set[str]:
    """The names of all knowledge paths that a base or any override of it contains."""
    found = set(base.get("distill") or {})
    for path, value in (item for overrides in changes for item in overrides.items()):
        if path == "distill":
            found |= set(value or {})
        elif _distils(path):
            found.add(path.split(".")[1])
    return found


def _distils(path: str) -> bool:
    return path.startswith("distill.")


def applies(path: str, weights: Mapping[str, float]) -> bool:
    """Whether a factor or search dimension has an effect, given the weights of paths and losses (see `terms`).

    A weight needs its path or loss, an option also a weight above 0, a setting of the teacher any path with such a
    weight.
    """
    root, *rest = path.split(".")
    if root == "teacher":
        return any(weight for name, weight in weights.items() if not name.startswith("loss."))
    if root not in ("distill", "loss") or len(rest) < 2:
        return True
    name = rest[0] if root == "distill" else f"loss.{rest[0]}"
    return name in weights and (rest[1] == "weight" or bool(weights[name]))


def contradiction(
    weights: Mapping[str, float], requires: Mapping[str, Sequence[str]], excludes: Sequence[Sequence[str]]
) -> str | None:
    """Why `requires` or `excludes` forbid these knowledge paths together, or None."""
    active = {f"distill.{name}" for name, weight in weights.items() if weight}
    for path, needed in requires.items():
        missing = [other for other in needed if other not in active]
        if path in active and missing:
            return f"{path} requires {', '.join(missing)}"
    for group in excludes:
        both = [path for path in group if path in active]
        if len(both) > 1:
            return f"{' and '.join(both)} exclude each other"
    return None


def check_rules(
    requires: Mapping[str, Sequence[str]], excludes: Sequence[Sequence[str]], mentioned: Iterable[str]
) -> None:
    """Raise UserError where `requires` or `excludes` names what is no knowledge path of the study (see `mentioned`)."""
    known = {f"distill.{name}" for name in mentioned}
    for path in itertools.chain(requires, *requires.values(), *excludes):
        if not path.startswith("distill.") or path.count(".") != 1:
            raise UserError(f"requires and excludes must name knowledge paths, such as distill.pea, but got '{path}'")
        if path not in known:
            raise UserError(f"requires and excludes: {unknown('knowledge path', path, known)}")


def label(value: Any) -> str:
    """A value as written in a label: off, on, 0.001, [0.1, 1], {weight: 2}."""
    if value is None or value == {}:
        return "off" if value is None else "on"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(label, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {label(inner)}" for key, inner in value.items()) + "}"
    return str(value)


def brief_label(value: Any) -> str:
    """A value that a search proposed, to three significant digits."""
    return label(float(f"{value:.3g}") if isinstance(value, float) else value)


def cost_label(value: float) -> str:
    """Millions of parameters or GMACs: two decimals, and below 0.01 three significant digits."""
    return f"{value:.2f}" if value >= 0.01 else brief_label(value)


def labelled(values: Any) -> dict[str, Any]:
    """Values by label: a mapping gives its own labels, a list gets them. Raises UserError on two of one label."""
    if isinstance(values, dict):
        named = values
    elif isinstance(values, list | tuple):
        named = {}
        for value in values:
            if (name := label(value)) in named:
                raise UserError(
                    f"values must have different labels, but {named[name]!r} and {value!r} are both shown as '{name}'; "
                    "remove one, or name the values: {NAME: VALUE, ...}"
                )
            named[name] = value
    else:
        raise UserError(f"values are a list, or a mapping from names to values, but got {values!r}")
    if not named:
        raise UserError("at least one value is needed, but got none")
    refuse_lookalikes(map(str, named))
    return named


def refuse_lookalikes(names: Iterable[str]) -> None:
    """Raise UserError for a blank name, and for two names that differ only in white space: tables show them alike."""
    shown: dict[str, str] = {}
    for name in names:
        if not (plain := " ".join(name.split())):
            raise UserError(f"a name must not be blank, but got {name!r}; write a word")
        if (other := shown.setdefault(plain, name)) != name:
            raise UserError(f"names must differ in more than white space, but got {other!r} and {name!r}; rename one")


def refuse_same_look(names: Iterable[str]) -> None:
    """Raise UserError for two names that Unicode calls compatible (NFKC), as the signs micro and mu are: many fonts
    show them alike."""
    shown: dict[str, str] = {}
    for name in names:
        if (other := shown.setdefault(unicodedata.normalize("NFKC", name), name)) != name:
            raise UserError(
                f"names must be told apart by eye, but got {other!a} and {name!a}, which look alike; rename one"
            )


def check_count(values: Mapping[str, int]) -> None:
    """Raise UserError where a grid has too many points; `values` counts those of each path."""
    if (points := math.prod(values.values())) > MAX_POINTS:
        most = max(values, key=lambda path: values[path])
        raise UserError(
            f"a grid may have {MAX_POINTS:,} points but has {min(points, MOST_SHOWN):,} or more; {most} has "
            f"{values[most]:,} values, give fewer"
        )


def short(path: str) -> str:
    """A dotted path as written in a label: `distill.pea.options.stage_weights` -> `pea.stage_weights`."""
    plain = path.removeprefix("distill.").removeprefix("optim.").removeprefix("data.augment.")
    return plain.replace(".options.", ".")


class Cell(NamedTuple):
    """A point of a grid: its arm's label, the overrides that apply there, and the weights of its knowledge paths."""

    name: str
    kept: Overrides
    weights: dict[str, float]


def cell(base: Mapping[str, Any], point: Mapping[str, tuple[str, Any]]) -> Cell:
    """The cell of a point: path -> (label, value). Points that differ only in factors without effect share a label."""
    values = {path: value for path, (_, value) in point.items()}
    weights = terms(base, values)
    kept = {path: value for path, value in values.items() if applies(path, weights)}
    return Cell(
        ", ".join(f"{short(path)}={label}" for path, (label, _) in point.items() if path in kept), kept, weights
    )


def grid(
    base: Mapping[str, Any],
    factors: Mapping[str, Mapping[str, Any]],
    requires: Mapping[str, Sequence[str]],
    excludes: Sequence[Sequence[str]],
) -> Arms:
    """Every combination of the factors. A factor that does not apply at a point is left out, so points may merge."""
    check_count({path: len(values) for path, values in factors.items()})
    arms: dict[str, Overrides] = {}
    left_out: set[str] = set()
    seen: set[str] = set()
    for point in itertools.product(*(values.items() for values in factors.values())):
        here = cell(base, dict(zip(factors, point, strict=True)))
        seen |= here.kept.keys()
        if contradiction(here.weights, requires, excludes):
            left_out.add(here.name)
        elif arms.setdefault(here.name, here.kept) != here.kept:
            raise UserError(
                f"two points would both be called '{here.name}'; give the values of one factor other names: "
                "{NAME: VALUE, ...}"
            )
    if unused := [path for path in factors if path not in seen]:
        raise UserError(f"{unused[0]} applies at no point; its path is never switched on")
    if not arms:
        raise UserError("every point contradicts `requires` or `excludes`; nothing is left to run")
    return Arms(arms, len(left_out))


def leave_one_out(base: Mapping[str, Any], mapping: str, whole: str) -> dict[str, Overrides]:
    """One arm for each key of a mapping in the base, or step of a list, without it: `<whole> without csf`."""
    inside = value_at(base, mapping)
    inside = step_names(inside) if isinstance(inside, list) else inside
    if not isinstance(inside, dict | list) or not inside or not removable(f"{mapping}.key"):
        raise UserError(
            "leave_one_out: expected `distill`, `data.augment` or options, with entries in the base, but got "
            f"{mapping!r}"
        )
    return {f"{whole} without {key}": {f"{mapping}.{key}": None} for key in inside}
