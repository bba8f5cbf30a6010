"""The errors that users see: one line with the name, the rule, the value and the remedy."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

_LISTS = ("tuple_type", "list_type")
_MAPPINGS = ("dict_type", "model_type", "model_attributes_type")
"""pydantic's error types for a value where a mapping is expected."""
_TYPE = re.compile(r"(function-(after|before|wrap|plain)|literal|tuple|list|dict|nullable|constrained-\w+)\[.*\]$")
"""How pydantic names, in the place of a mistake, one of several types that a value may have."""
_PLAIN = {"string_type": "str", "int_type": "int", "float_type": "float", "bool_type": "bool"}
"""How it names a plain one of them, at the end of the place, by the type of the error."""
SHOWN = 200
"""Longest value in a message, in characters."""
LISTED = 5
"""Most mistakes in one message."""


class UserError(ValueError):
    """A mistake in what the user gave: one line with the name, the rule, the value and the remedy. Exit code 2."""


class UnreachableError(UserError):
    """What lies elsewhere does not answer, and may later: the same command goes on then. Exit code 4."""


class NumericalError(RuntimeError):
    """A loss is NaN or infinite: the run fails, the study continues."""


@contextlib.contextmanager
def located(where: str) -> Iterator[None]:
    """Prefix UserErrors raised inside with the place of the mistake: `STUDY: ARM: ...`."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not in a registry: `unknown distiller 'pae'; did you mean 'pea'?`."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(names) or 'none'}"
    return UserError(f"unknown {kind} '{name}'; {hint}")


def shown(value: Any) -> str:
    """A value as written in Python, for a message; a long one is cut."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def explain(error: ValidationError, where: str) -> UserError:
    """A pydantic error as a one-line UserError: `FILE: optim.lr: must ..., but got -1`."""
    found = _by_place(error)
    lines = []
    for place, items in list(found.items())[:LISTED]:
        *others, last = dict.fromkeys(_said(error, item) for item in items)
        others = [other.removesuffix(f", but got {shown(items[0]['input'])}") for other in others]
        lines.append(f"{'.'.join(place) or 'the whole file'}: {', or '.join([*others, last])}{_meant(items)}")
    more = [f"and {len(found) - LISTED} more"] if len(found) > LISTED else []
    return UserError(f"{where}: " + "; ".join([*lines, *more]))


def _by_place(error: ValidationError) -> dict[tuple[str, ...], list[ErrorDetails]]:
    """The mistakes by the place of a value in the file.

    Of a value that may have one of several types pydantic tells what each type refuses; where a type refuses a part of
    the value only, the value was meant to be of that type.
    """
    found: dict[tuple[str, ...], list[ErrorDetails]] = {}
    for item in error.errors():
        loc = item["loc"]
        is_plain = len(loc) > 1 and loc[-1] == _PLAIN.get(item["type"])
        loc = loc[:-1] if is_plain else loc
        kind = next((i for i, part in enumerate(loc) if _TYPE.match(str(part))), len(loc) if is_plain else None)
        given = loc if kind is None else loc[:kind]
        inside = () if kind is None else tuple(part for part in loc[kind:] if not _TYPE.match(str(part)))
        whole, place = tuple(map(str, given)), tuple(map(str, (*given, *inside)))
        if place[-1:] == ("[key]",):  # a key is shown in the message
            place = place[:-2]
        if inside:
            found.pop(whole, None)
        elif kind is not None and any(other[: len(whole)] == whole and other != whole for other in found):
            continue
        found.setdefault(place, []).append(item)
    return found


def _meant(items: Iterable[ErrorDetails]) -> str:
    """`; did you mean 'val'?` for a text that is none of those allowed, but like one; of a key, else those allowed."""
    for item in items:
        if item["type"] == "literal_error" and isinstance(item["input"], str):
            allowed = re.findall("'([^']*)'", item["ctx"]["expected"])
            if close := difflib.get_close_matches(item["input"], allowed, n=1):
                return f"; did you mean '{close[0]}'?"
            if item["loc"][-1] == "[key]":
                return f"; known: {', '.join(allowed)}"
    return ""


def _said(error: ValidationError, item: ErrorDetails) -> str:
    """What is wrong with one value."""
    given, kind = item["input"], item["type"]
    if kind == "extra_forbidden":
        return f"unknown key; {_known_keys(error.title, item['loc'])}".rstrip("; ")
    if kind == "literal_error" and item["loc"][-1] == "[key]":
        return f"unknown key {shown(given)}"
    if kind in _MAPPINGS and given is None:
        return "nothing is written under it; write {} for its defaults, or leave the key out"
    if kind in _MAPPINGS:
        return f"keys and values are expected, for example {{}}, but got {shown(given)}"
    if kind in _LISTS:
        return f"a list is expected, for example [0, 1], but got {shown(given)}"
    if kind == "missing":
        return "is missing"
    if kind == "too_short":
        return f"needs {item['ctx']['min_length']} or more, but got {shown(given)}"
    message = item["msg"].removeprefix("Value error, ")
    message = re.sub(r"\b[0-9]{22,}(\.0)?\b", lambda digits: f"{float(digits[0]):g}", message)
    if isinstance(given, dict | list) or kind == "value_error":
        return message
    return f"{message}, but got {shown(given)}"


def _known_keys(title: str, loc: tuple[int | str, ...]) -> str:
    """`did you mean ...?` for an unknown key; "" where the section is no model of ours."""
    models: dict[str, type[BaseModel]] = {c.__name__: c for c in _subclasses(BaseModel)}
    model: Any = models.get(title)
    for part in loc[:-1]:
        field = model.model_fields.get(part) if model else None
        candidates = [m for n, m in models.items() if field and n in str(field.annotation)]
        model = candidates[0] if candidates else None
    if model is None:
        return ""
    close = difflib.get_close_matches(str(loc[-1]), list(model.model_fields), n=1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(model.model_fields)}"


def _subclasses(cls: type[BaseModel]) -> list[type[BaseModel]]:
    return [c for child in cls.__subclasses__() for c in (child, *_subclasses(child))]
