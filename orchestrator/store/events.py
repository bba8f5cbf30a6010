"""Events: the fields of each kind of a ledger's events, and what is wrong with one that was damaged or edited."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from trainer.config import masked

COUNTS = ("epoch", "step")
"""Metrics that count, as whole numbers."""
MOST = 2**53
"""The largest count: up to here every whole number is a float."""


def _counted(metrics: dict[str, float | None]) -> dict[str, float | None]:
    for name in COUNTS:
        value = metrics.get(name, 0)
        if value is None or not (0 <= value <= MOST and value == math.floor(value)):
            raise ValueError(f"{name} must be a whole number of 0 or more but is {value}")
    return metrics


def _is_time(text: str) -> str:
    if text:
        datetime.fromisoformat(text)
    return text


Numbers = Annotated[dict[str, float | None], AfterValidator(_counted)]
"""Metrics; null for what was not finite."""
Time = Annotated[str, AfterValidator(_is_time)]
"""ISO 8601."""

OF_A_RUN = ("run_id", "time")
REQUIRED = {
    "told": ("study", "search", "trials"),
    "trial": ("number", "values"),
    "again": ("search", "number"),
    "reused": ("run_id",),
    "epoch": (*OF_A_RUN, "metrics"),
    "note": ("run_id", "text"),
    **dict.fromkeys(("started", "retried", "interrupted", "failed", "stopped"), OF_A_RUN),
    "finished": (*OF_A_RUN, "last"),
}
"""The fields without which an event says nothing. Kinds of later versions may be there too."""


class Fields(TypedDict, total=False):
    """The types of all fields that are read; an event has those of its kind."""

    __pydantic_config__ = ConfigDict(strict=True)  # type: ignore[misc]

    event: str
    time: Time
    run_id: str
    key: str
    study: str
    arm: str
    seed: int | None
    role: str
    text: str
    reason: str
    cause: str
    imported: str
    search: str
    number: int
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    metrics: Numbers
    last: Numbers | None
    best: Numbers
    values: dict[str, Any]
    costs: dict[str, Any]
    end: dict[str, Any]
    trials: list[dict[str, Any]]
    complexity: dict[str, Any]
    environment: dict[str, Any]
    config: dict[str, Any]
    data: dict[str, Any]
    weights: dict[str, Any]
    artifacts: dict[str, Any]
    sources: dict[str, Any]
    plugins: list[dict[str, Any]]


FIELDS = TypeAdapter(Fields)


def masked_texts(event: Mapping[str, Any]) -> dict[str, Any]:
    """An event whose reasons and notes, which quote errors of others, hold no password. Configs and studies stay as
    they are: ids and digests are made of them."""
    found = dict(event)
    for name in ("reason", "text") if event.get("event") == "note" else ("reason",):
        if isinstance(found.get(name), str):
            found[name] = masked(found[name])
    if isinstance(found.get("end"), Mapping):
        found["end"] = masked_texts(found["end"])
    if isinstance(found.get("trials"), list):
        found["trials"] = [masked_texts(trial) if isinstance(trial, Mapping) else trial for trial in found["trials"]]
    return found


def problem(event: Mapping[str, Any]) -> str:
    """What is wrong with an event in a few words; empty where nothing is."""
    if lacking := [name for name in REQUIRED.get(str(event["event"]), ()) if event.get(name) is None]:
        return f"`{event['event']}` lacks {' and '.join(lacking)}"
    if event["event"] == "epoch" and event["metrics"].__class__ is dict and "epoch" not in event["metrics"]:
        return "`epoch` lacks metrics.epoch"
    try:
        FIELDS.validate_python(event)
    except ValidationError as error:
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}"
    return ""
