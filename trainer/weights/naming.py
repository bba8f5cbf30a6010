"""Namings: how families of checkpoints name the entries of our networks.

A naming is recognised by entries that its files always have, never by the file's name. The entries may have any prefix,
such as `state_dict.module.`, because wrappers of networks and of files add one. A naming's table maps module names,
theirs -> ours. In a name, `{z}` and `{s}` are the stage counted from 0 and from 1, `{i}` is the block and `{rest}` is
the rest of the name; the last component (`weight`, `running_mean`) is kept.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from torch import Tensor

from trainer.config import Normalize

State = Mapping[str, Tensor]

_HOLES = {r"\{z\}": r"(?P<z>\d+)", r"\{s\}": r"(?P<s>\d+)", r"\{i\}": r"(?P<i>\d+)", r"\{rest\}": r"(?P<rest>.+)"}


def _unchanged(state: State) -> State:
    return state


class Naming(NamedTuple):
    """One family of checkpoints: how to recognise it, and our names of its entries."""

    title: str
    marks: tuple[str, ...]
    """Regular expressions; a file of this family has an entry that matches each of them."""
    modules: Mapping[str, str]
    """Modules, theirs -> ours; the first match is used, and a name without a match is kept."""
    normalize: Normalize | None
    """Normalisation of the images in their training; None if unknown."""
    drop: tuple[str, ...] = ()
    """Prefixes of entries that our networks lack: classifiers, auxiliary heads."""
    prepare: Callable[[State], State] = _unchanged
    """Applied before the table, to join, split or reshape entries."""
    remark: str = ""
    """Added to the error message when such a file does not fit."""
    shared: bool = False
    """Whether state dicts of this program have the same names, so that names alone do not tell the origin."""

    def translate(self, state: State) -> dict[str, Tensor]:
        """The entries under our names."""
        kept = {name: tensor for name, tensor in state.items() if not name.startswith(self.drop)}
        return {_translated(name, tuple(self.modules.items())): t for name, t in self.prepare(kept).items()}


class Located(NamedTuple):
    """Where in a file the entries of one network are, and how they are named."""

    prefix: str
    """Before the entries' names, with its dot: `state_dict.module.`, or "" for a file that holds only them."""
    naming: Naming


def recognise(names: Iterable[str], namings: Iterable[Naming]) -> list[Located]:
    """The prefixes below which all marks of a naming are found, each with the first such naming."""
    names, found = tuple(names), dict[str, Naming]()
    for naming in namings:
        below = [{match[1] for name in names if (match := _marked(mark).fullmatch(name))} for mark in naming.marks]
        for prefix in set.intersection(*below):
            found.setdefault(prefix, naming)
    return [Located(prefix, naming) for prefix, naming in found.items()]


@functools.cache
def _marked(mark: str) -> re.Pattern[str]:
    """A mark behind the shortest prefix that leaves it."""
    return re.compile(rf"((?:.*?\.)??)(?:{mark})")


def without_prefix(state: State, *prefixes: str) -> dict[str, Tensor]:
    """The entries, each without the first of `prefixes` that its name has."""
    return {_strip(name, prefixes): tensor for name, tensor in state.items()}


def _strip(name: str, prefixes: tuple[str, ...]) -> str:
    return next((name.removeprefix(prefix) for prefix in prefixes if name.startswith(prefix)), name)


def _translated(name: str, modules: tuple[tuple[str, str], ...]) -> str:
    module, dot, leaf = name.rpartition(".")
    for theirs, ours in modules:
        found = _pattern(theirs).fullmatch(module)
        if found:
            return ours.format(**_numbers(found.groupdict())) + dot + leaf
    return name


def _numbers(holes: dict[str, str]) -> dict[str, str]:
    """Add the other of the two stage numbers, `z` and `s` = z + 1."""
    if "z" in holes:
        return {"s": str(int(holes["z"]) + 1), **holes}
    if "s" in holes:
        return {"z": str(int(holes["s"]) - 1), **holes}
    return holes


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    expression = re.escape(template)
    for hole, group in _HOLES.items():
        expression = expression.replace(hole, group)
    return re.compile(expression)
