"""ClassValues: the classes of a user's masks, as a list, as values with names, or as names with RGB colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from trainer.config import IGNORE, UserError, shown
from trainer.data.base import label_table
from trainer.data.palette import Colour, voc_colours
from trainer.data.returned import INVALID

MOST_CLASSES = INVALID
"""Train ids 254 and 255 mark what is invalid and ignored."""
LARGEST_VALUE = 65535
"""In a mask: of 16 bits."""
_OPTION = "data.options.classes"


class ClassValues(NamedTuple):
    """The K classes, and the train id of each value or colour of a mask."""

    names: tuple[str, ...]
    palette: tuple[Colour, ...]  # K colours
    table: np.ndarray  # (256,) or (65536,) uint8: train id, IGNORE or INVALID of a value
    colours: Mapping[Colour, int]  # RGB -> train id or IGNORE; empty where masks hold values

    def labels(self, rgb: np.ndarray) -> np.ndarray:
        """(H, W) uint8 of train ids, IGNORE, and INVALID for a colour that no class has, from colours (H, W, 3)."""
        codes = (rgb.astype(np.uint32) << np.array([16, 8, 0], np.uint32)).sum(axis=2, dtype=np.uint32)
        known = {(r << 16) + (g << 8) + b: train_id for (r, g, b), train_id in self.colours.items()}
        keys = np.array(sorted(known), np.uint32)
        ids = np.array([known[int(key)] for key in keys], np.uint8)
        at = np.searchsorted(keys, codes).clip(max=len(keys) - 1)
        return np.where(keys[at] == codes, ids[at], np.uint8(INVALID))


def class_values(classes: Any, ignore: Any) -> ClassValues:
    """The meaning of the options `classes` and `ignore`. Raises UserError naming the entry that is wrong.

    A list gives the values 0, 1, ... their names. A mapping is from values to names, of which equal ones make one
    class, in the order of the lowest values; or from names to a colour [R, G, B] or a list of them, in the order of
    the names. (The order in which a mapping is written must not matter: it is not part of a run's key.) `ignore` is a
    value, or a list of values or colours; 255 is ignored unless it is a class.
    """
    if isinstance(classes, Mapping) and any(isinstance(value, list | tuple) for value in classes.values()):
        return _by_colour(classes, ignore)
    if isinstance(classes, list | tuple):
        _refuse_twice(classes)
        names = dict(enumerate(map(_name, classes)))
    elif isinstance(classes, Mapping):
        names = _named_once(classes)
    else:
        raise UserError(
            f"{_OPTION}: a list of names, values with names, or names with [R, G, B] are expected, but got "
            f"{shown(classes)}"
        )
    return _by_value(names, ignore)


def _named_once(classes: Mapping[Any, Any]) -> dict[int, str]:
    """Value -> name. Raises UserError for a value that is written in two ways, as "1" and "01"."""
    written: dict[int, Any] = {}
    for text in classes:
        value = _value(_OPTION, text)
        if value in written:
            raise UserError(
                f"{_OPTION}: {shown(written[value])} and {shown(text)} are the same value, named "
                f"{shown(classes[written[value]])} and {shown(classes[text])}; keep one of them"
            )
        written[value] = text
    return {value: _name(classes[text]) for value, text in written.items()}


def _by_value(names: Mapping[int, str], ignore: Any) -> ClassValues:
    ordered = tuple(dict.fromkeys(names[value] for value in sorted(names)))
    _refuse_count(ordered)
    ignored = [_value("data.options.ignore", value) for value in _listed(ignore)]
    for value in ignored:
        if value in names:
            raise UserError(f"data.options.ignore: {value} is class '{names[value]}'; ignore it or name it, not both")
    largest = max([*names, *ignored])
    if largest < 256:
        table = label_table({value: ordered.index(name) for value, name in names.items()}, tuple(ignored))
    else:
        table = np.full(LARGEST_VALUE + 1, INVALID, np.uint8)
        table[[*ignored, IGNORE]] = IGNORE
        for value, name in names.items():
            table[value] = ordered.index(name)
    return ClassValues(ordered, voc_colours(len(ordered) + 1)[1:], table, {})


def _by_colour(classes: Mapping[str, Any], ignore: Any) -> ClassValues:
    ordered = tuple(sorted(map(_name, classes)))
    _refuse_count(ordered)
    colours: dict[Colour, int] = {}
    first: list[Colour] = []
    for train_id, name in enumerate(ordered):
        own = _colours(f"{_OPTION}.{name}", classes[name])
        first.append(own[0])
        for colour in own:
            if colours.get(colour) == train_id:
                raise UserError(f"{_OPTION}.{name}: {list(colour)} is written twice; remove one of them")
            if colour in colours:
                raise UserError(
                    f"{_OPTION}: {list(colour)} is the colour of '{ordered[colours[colour]]}' and '{name}'; give each "
                    "class its own"
                )
            colours[colour] = train_id
    for colour in _colours("data.options.ignore", ignore) if _listed(ignore) else ():
        if colours.get(colour, IGNORE) != IGNORE:
            raise UserError(
                f"data.options.ignore: {list(colour)} is the colour of '{ordered[colours[colour]]}'; ignore it or name "
                "it, not both"
            )
        colours[colour] = IGNORE
    return ClassValues(ordered, tuple(first), np.full(256, INVALID, np.uint8), colours)


def _colours(where: str, given: Any) -> list[Colour]:
    found = _listed(given)
    if found and not isinstance(found[0], list | tuple):
        found = [found]
    for colour in found:
        right = isinstance(colour, list | tuple) and len(colour) == 3
        if not right or any(type(part) is not int or not 0 <= part <= 255 for part in colour):
            raise UserError(
                f"{where}: a colour is three whole numbers from 0 to 255, [R, G, B], but got {shown(colour)}"
            )
    if not found:
        raise UserError(f"{where}: a colour [R, G, B] is missing")
    return [(colour[0], colour[1], colour[2]) for colour in found]


def _listed(given: Any) -> Sequence[Any]:
    return given if isinstance(given, list | tuple) else [given]


def _value(where: str, given: Any) -> int:
    """A value of a mask; YAML's keys are text."""
    text = str(given)
    if isinstance(given, bool) or not (text.isascii() and text.isdigit()) or int(text) > LARGEST_VALUE:
        raise UserError(
            f"{where}: a value of a mask is a whole number from 0 to {LARGEST_VALUE}, but got {shown(given)}"
        )
    return int(text)


def _name(given: Any) -> str:
    if not isinstance(given, str):
        raise UserError(f"{_OPTION}: a name is text, but got {shown(given)}; put it in quotes")
    if not given.strip() or not given.isprintable() or "/" in given:
        raise UserError(f"{_OPTION}: a name is one line of text without '/', but got {shown(given)}; write another")
    return given


def _refuse_twice(names: Sequence[Any]) -> None:
    twice = next((name for at, name in enumerate(names) if name in names[:at]), None)
    if twice is not None:
        at = [i for i, name in enumerate(names) if name == twice]
        raise UserError(
            f"{_OPTION}: '{twice}' is the name of {' and '.join(map(str, at))}; rename one, or write values with names "
            f'to make them one class: {{"{at[0]}": {twice}, "{at[1]}": {twice}}}'
        )


def _refuse_count(names: Sequence[str]) -> None:
    if not 2 <= len(names) <= MOST_CLASSES:
        raise UserError(f"{_OPTION}: 2 to {MOST_CLASSES} classes are possible, but got {len(names)}; name them all")
