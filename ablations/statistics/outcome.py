"""Outcome: how a run ended, and the scores that a table reads from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ablations.study.metric import protocol_of
from ablations.study.plan import Run, by_arm
from ablations.study.schema import Study
from trainer.config import TrainConfig, parse


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the metrics of its last epoch and of its best one, or the reason why there are none."""

    status: Literal["finished", "failed", "running", "missing"]
    metrics: dict[str, float] = field(default_factory=dict)
    reason: str = ""
    best: dict[str, float] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether no more results will come: the run has finished or failed."""
        return self.status in ("finished", "failed")


MISSING = Outcome("missing")


def protocol(study: Study) -> str:
    """The protocol of the study's metric."""
    return protocol_of(study.metric, parse(study.base))


def scores_of(study: Study, group: Sequence[Run], outcomes: Mapping[str, Outcome]) -> dict[int, float]:
    """The metric of the last epoch by seed, of finished runs; NaN and infinite values are left out."""
    found = {}
    for run in group:
        outcome = outcomes.get(run.key, MISSING)
        value = outcome.metrics.get(study.metric, math.nan)
        if outcome.status == "finished" and math.isfinite(value):
            found[run.seed] = value
    return found


def scores_by_arm(study: Study, runs: Sequence[Run], outcomes: Mapping[str, Outcome]) -> dict[str, dict[int, float]]:
    """`scores_of` the runs of each arm."""
    return {arm: scores_of(study, group, outcomes) for arm, group in by_arm(runs).items()}


def arms_not_ended(runs: Sequence[Run], outcomes: Mapping[str, Outcome]) -> set[str]:
    """The arms of which some run is missing or still running."""
    return {run.arm for run in runs if not outcomes.get(run.key, MISSING).ended}


def teachers(runs: Sequence[Run]) -> list[TrainConfig]:
    """The config of one taught arm for each distinct teacher."""
    found = {(run.needs, run.config.teacher.model_dump_json()): run.config for run in runs if run.config.teacher}
    return list(found.values())
