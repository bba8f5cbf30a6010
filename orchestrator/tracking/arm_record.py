"""ArmRecord: what MLflow is to hold of an arm over its seeds: mean, deviation, differences, verdicts, mean curve."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ablations.statistics.outcome import arms_not_ended
from ablations.study.plan import by_arm
from ablations.table.shape import Table
from orchestrator.state.study_state import StudyRun, StudyState
from orchestrator.tracking.mlflow_server import Point
from orchestrator.tracking.run_record import flatten, milliseconds
from trainer.config import digest

VERDICTS = {"better": 1.0, "worse": -1.0}
"""A verdict as a number, so that MLflow can sort by it; all others are 0."""
CONTRAST = {"difference": "difference", "difference/low": "interval_low", "difference/high": "interval_high", "p": "p"}
"""Our name of a metric -> its name in a row of the table."""


class ArmRecord(NamedTuple):
    """An arm all of whose seeds have ended."""

    arm: str
    run_ids: tuple[str, ...]
    params: dict[str, str]
    tags: dict[str, str]
    points: list[Point]

    @property
    def content(self) -> str:
        """A digest that is equal when nothing has changed since."""
        return digest([self.params, self.tags, self.points])


def arm_records(state: StudyState, table: Table) -> list[ArmRecord]:
    """The arms of a study of several seeds whose runs have all ended. `table` is the study's."""
    if state.study.search is not None or len(state.study.seeds) == 1:
        return []
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for row in table.rows:
        rows.setdefault(row.values["arm"], []).append(row.values)
    runs = {run.plan.key: run for run in state.due if run.plan.role == "arm"}
    plans = by_arm([run.plan for run in runs.values()])
    left = arms_not_ended([run.plan for run in runs.values()], state.outcomes)
    return [
        _record(arm, [runs[plan.key] for plan in group], rows[arm], state.study.metric)
        for arm, group in plans.items()
        if arm not in left and arm in rows
    ]


def _record(arm: str, runs: Sequence[StudyRun], rows: Sequence[Mapping[str, Any]], metric: str) -> ArmRecord:
    finished = [run for run in runs if run.finished]
    when = milliseconds(max(run.run.changed for run in runs))
    numbers = {"seeds/n": rows[0]["n"], "seeds/mean": rows[0]["mean"], "seeds/std": rows[0]["std"]}
    tags: dict[str, str] = {}
    for number, row in enumerate((row for row in rows if "reference" in row and "verdict" in row), 1):
        end = "" if number == 1 else f"/{number}"
        numbers |= {name + end: row[key] for name, key in CONTRAST.items() if key in row}
        numbers[f"verdict{end}"] = VERDICTS.get(row["verdict"], 0.0)
        tags |= {f"transkd.vs{end}": row["reference"], f"transkd.verdict{end}": row["verdict"]}
    points = [Point(name, float(value), 0, when) for name, value in numbers.items() if math.isfinite(value)]
    points += [Point(metric, mean, epoch, when) for epoch, mean in _mean_curve(finished, metric)]
    return ArmRecord(arm, tuple(run.run_id for run in runs), flatten(runs[0].plan.changed), tags, points)


def _mean_curve(runs: Sequence[StudyRun], metric: str) -> list[tuple[int, float]]:
    """(epoch, mean over the seeds) at the epochs at which every finished seed has a value."""
    curves = [
        {int(row["epoch"]): row[metric] for row in run.run.epochs if math.isfinite(row.get(metric, math.nan))}
        for run in runs
    ]
    shared = set.intersection(*map(set, curves)) if curves else set()
    return [(epoch, sum(curve[epoch] for curve in curves) / len(curves)) for epoch in sorted(shared)]
