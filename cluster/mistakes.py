"""Error messages for a cluster spec: the key, the rule, the value, and the key that was probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from pydantic import ValidationError

from cluster.machine_types import MachineKind
from cluster.overrides import Override
from cluster.retries import Retries
from trainer.config import Strict, shown

_RENAMED = {"max_failures": "is replaced by retries, which counts each cause separately; write retries: {lost: N}"}

_SECTIONS: dict[str, type[Strict]] = {"retries": Retries, "overrides": Override, "machine_types": MachineKind}
"""The keys with keys of their own."""

_BRANCHES = re.compile(r"literal\[|tuple\[|(function|constrained)-|int$|float$")
"""pydantic appends such a part to the location of a value that may be `auto`, a number or a range."""


def lines(error: ValidationError, keys: Iterable[str]) -> list[str]:
    """One line per wrong key; `keys` are the valid ones."""
    found: dict[str, str] = {}
    for item in error.errors():
        path = [str(part) for part in item["loc"] if not _BRANCHES.match(str(part))]
        field = ".".join(path) or "the whole file"
        message = item["msg"].removeprefix("Value error, ")
        if field in _RENAMED:
            message = _RENAMED[field]
        elif item["type"] == "extra_forbidden":
            message = (
                f"unknown key; {hint(path[-1], _SECTIONS[path[0]].model_fields if path[0] in _SECTIONS else keys)}"
            )
        elif field in ("concurrency", "retries.memory") and item["type"] != "value_error":
            message = f"must be `auto` or a whole number but got {shown(item['input'])}"
        elif field == "cohort" and item["type"] != "value_error":
            message = f"must be `auto`, `off` or a whole number but got {shown(item['input'])}"
        elif field == "retries":
            message = f"must map causes to numbers, for example {{lost: 3}}, but got {shown(item['input'])}"
        elif item["type"] != "value_error":
            message = f"{message[0].lower()}{message[1:]} but got {shown(item['input'])}"
        found.setdefault(field, f"{field}: {message}")
    return list(found.values())


def hint(name: str, known: Iterable[str]) -> str:
    """`did you mean ...?` with the known name closest to `name`, or a list of all."""
    choices = list(known)
    close = difflib.get_close_matches(name, choices, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(choices)}"
