"""Events: the fields of each kind of a ledger's events, and what is wrong with one that was damaged or edited."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

Numbers = dict[str, float | None]
"""Metrics; null for what was not finite."""

OF_A_RUN = ("run_id", "time")
REQUIRED = {
    "told": ("study", "search", "trials"),
    "trial": ("number", "values"),
    "again": ("search", "number"),
    "reused": ("run_id",),
    "epoch": (*OF_A_RUN, "metrics"),
    "note": ("run_id", "text"),
    **dict.fromkeys(("started", "retried", "interrupted", "finished", "failed", "stopped"), OF_A_RUN),
}
"""The fields without which an event says nothing. Kinds of later versions may be there too."""


class Fields(BaseModel, strict=True):
    """The types of all fields that are read; an event has those of its kind."""

    event: str
    time: str = ""
    run_id: str = ""
    key: str = ""
    study: str = ""
    arm: str = ""
    seed: int | None = None
    role: str = ""
    text: str = ""
    reason: str = ""
    cause: str = ""
    imported: str = ""
    search: str = ""
    number: int = 0
    seconds: float = 0.0
    metrics: Numbers = {}
    last: Numbers | None = None
    best: Numbers = {}
    values: dict[str, Any] = {}
    costs: dict[str, Any] = {}
    end: dict[str, Any] = {}
    trials: list[dict[str, Any]] = []
    complexity: dict[str, Any] = {}
    environment: dict[str, Any] = {}
    config: dict[str, Any] = {}
    data: dict[str, Any] = {}
    weights: dict[str, Any] = {}
    artifacts: dict[str, Any] = {}
    sources: dict[str, Any] = {}


def problem(event: Mapping[str, Any]) -> str:
    """What is wrong with an event in a few words; empty where nothing is."""
    if lacking := [name for name in REQUIRED.get(str(event["event"]), ()) if name not in event]:
        return f"`{event['event']}` lacks {' and '.join(lacking)}"
    if event["event"] == "epoch" and event["metrics"].__class__ is dict and "epoch" not in event["metrics"]:
        return "`epoch` lacks metrics.epoch"
    try:
        Fields.model_validate(event)
    except ValidationError as error:
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return ""
