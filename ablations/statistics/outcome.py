"""Outcome: what became of a run, and what a table reads from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ablations.study.metric import protocol_of
from ablations.study.plan import Run
from ablations.study.schema import Study
from trainer.config import TrainConfig, parse


@dataclass(frozen=True)
class Outcome:
    """What became of a run: the metrics of its last epoch, of its best one, and why there are none."""

    status: Literal["finished", "failed", "running", "missing"]
    metrics: dict[str, float] = field(default_factory=dict)
    reason: str = ""
    best: dict[str, float] = field(default_factory=dict)


MISSING = Outcome("missing")


def protocol(study: Study) -> str:
    """The protocol of the study's metric."""
    return protocol_of(study.metric, parse(study.base))


def scores_of(study: Study, group: Sequence[Run], outcomes: Mapping[str, Outcome]) -> dict[int, float]:
    """Metric of the last epoch by seed, of finished runs; one that is not a number is no score."""
    found = {}
    for run in group:
        outcome = outcomes.get(run.key, MISSING)
        value = outcome.metrics.get(study.metric, math.nan)
        if outcome.status == "finished" and math.isfinite(value):
            found[run.seed] = value
    return found


def teachers(runs: Sequence[Run]) -> list[TrainConfig]:
    """One config for each distinct teacher of the arms."""
    found = {(run.needs, run.config.teacher.model_dump_json()): run.config for run in runs if run.config.teacher}
    return list(found.values())
