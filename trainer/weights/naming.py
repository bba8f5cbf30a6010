"""Namings: how families of checkpoints name the entries of our networks, and which of them a file uses.

A naming is recognised by entries that its files always have, never by the name of a file. Its table gives modules,
theirs -> ours, in which `{z}` and `{s}` count stages from 0 and from 1, `{i}` counts blocks and `{rest}` is what is
left of the name; the last part (`weight`, `running_mean`) stays.
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
    """One family of checkpoints: how to know it, and what its entries are in our names."""

    title: str
    marks: tuple[str, ...]
    """Regular expressions; a file of this family has an entry for each of them."""
    modules: Mapping[str, str]
    """Modules, theirs -> ours; the first that fits counts, and what none fits keeps its name."""
    normalize: Normalize | None
    """What the images were scaled to when these weights were trained; None where that is not known."""
    drop: tuple[str, ...] = ()
    """First words of entries that have no place in our networks: classifiers, auxiliary heads."""
    prepare: Callable[[State], State] = _unchanged
    """Applied before the table, for what is more than a name: entries to be joined, split or reshaped."""
    remark: str = ""
    """What a reader should know when such a file does not fit."""
    shared: bool = False
    """Whether a plain state dict of this program looks the same, so that only other marks tell whose it is."""

    def matches(self, names: Iterable[str]) -> bool:
        """Whether a file with these entries is of this family."""
        names = tuple(names)
        return all(any(re.fullmatch(mark, name) for name in names) for mark in self.marks)

    def translate(self, state: State) -> dict[str, Tensor]:
        """The entries under our names."""
        kept = {name: tensor for name, tensor in state.items() if not name.startswith(self.drop)}
        return {_translated(name, tuple(self.modules.items())): t for name, t in self.prepare(kept).items()}


def recognise(names: Iterable[str], namings: Iterable[Naming]) -> Naming | None:
    """The first naming whose marks are all among `names`."""
    names = tuple(names)
    return next((naming for naming in namings if naming.matches(names)), None)


def without_prefix(state: State, *prefixes: str) -> dict[str, Tensor]:
    """The entries with the first of `prefixes` that they have taken off."""
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
    """Each count of a stage from the other."""
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
