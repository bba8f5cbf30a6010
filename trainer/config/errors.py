"""The errors that users see: one line with the name, the rule, the value and the remedy."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

_LISTS = ("tuple_type", "list_type")
_MAPPINGS = ("dict_type", "model_type", "model_attributes_type")
"""pydantic's error types for a value where a mapping is expected."""
SHOWN = 200
"""Longest value in a message, in characters."""
LISTED = 5
"""Most mistakes in one message."""


class UserError(ValueError):
    """A mistake in what the user gave: one line with the name, the rule, the value and the remedy. Exit code 2."""


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
    lines = []
    found = error.errors()
    for item in found[:LISTED]:
        place = item["loc"][:-2] if item["loc"][-1:] == ("[key]",) else item["loc"]  # a key is shown in the message
        path = ".".join(map(str, place)) or "the whole file"
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = f"unknown key; {_known_keys(error.title, item['loc'])}".rstrip("; ")
        elif item["type"] in _MAPPINGS and item["input"] is None:
            message = "nothing is written under it; write {} for its defaults, or leave the key out"
        elif item["type"] in _MAPPINGS:
            message = f"keys and values are expected, for example {{}}, but got {shown(item['input'])}"
        elif item["type"] in _LISTS:
            message = f"a list is expected, for example [0, 1], but got {shown(item['input'])}"
        elif item["type"] == "missing":
            message = "is missing"
        elif item["type"] == "too_short":
            message = f"needs {item['ctx']['min_length']} or more, but got {shown(item['input'])}"
        elif not isinstance(item["input"], dict | list) and item["type"] != "value_error":
            message += f", but got {shown(item['input'])}"
        lines.append(f"{path}: {message}")
    more = [f"and {len(found) - LISTED} more"] if len(found) > LISTED else []
    return UserError(f"{where}: " + "; ".join([*lines, *more]))


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
