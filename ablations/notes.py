"""Notes: what must be read with a table, from seeds that failed to arms that differ in more than they should."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ablations.outcome import MISSING, Outcome, teachers
from ablations.plan import Run
from ablations.stats import FAMILY_WISE, describe_design
from ablations.study import Study


def notes_on(study: Study, runs: Sequence[Run], outcomes: Mapping[str, Outcome]) -> list[str]:
    """A line for each thing that would change how the rows are read, the most urgent first."""
    notes = [*unfinished(study, runs, outcomes), describe_design(len(study.seeds), len(study.pairs))]
    if any(outcomes.get(run.key, MISSING).status in ("missing", "running") for run in runs):
        notes.append("not yet: no verdict before all seeds of both arms have ended, for each look would be a test")
    if study.margin is not None:
        notes.append(
            f"equivalent: within ±{study.margin:g} points by two one-sided t tests, "
            f"a family of their own at {FAMILY_WISE * 100:g} %"
        )
    if len(teachers(runs)) == 1:
        notes.append("conditional on one teacher: another may order the arms differently")
    if study.compared.left_out:
        notes.append(f"grid points left out, for they contradict requires or excludes: {study.compared.left_out}")
    return notes + _unequal(study, runs)


def unfinished(study: Study, runs: Sequence[Run], outcomes: Mapping[str, Outcome]) -> list[str]:
    """A line for each arm and reason why seeds are not in the table."""
    lines: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        outcome = outcomes.get(run.key, MISSING)
        if outcome.status != "finished":
            why = outcome.reason or ("not run yet" if outcome.status == "missing" else outcome.status)
        elif math.isfinite(outcome.metrics.get(study.metric, math.nan)):
            continue
        else:
            why = f"finished without a number for {study.metric}"
        lines.setdefault((run.arm, why), []).append(str(run.seed))
    return [
        f"not finished: {arm} seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}: {why}"
        for (arm, why), seeds in lines.items()
    ]


def _unequal(study: Study, runs: Sequence[Run]) -> list[str]:
    """What else differs between the arms of a contrast that could make the difference alone."""
    configs = {run.arm: run.config.model_dump(mode="json") for run in runs if run.role == "arm"}
    return [
        f"unequal: {path} is {ours} in {arm}, {theirs} in {reference}"
        for arm, reference in study.pairs
        for path in ("optim.epochs", "optim.global_batch", "student.init")
        if (ours := _at(configs[arm], path)) != (theirs := _at(configs[reference], path))
    ]


def _at(data: Any, path: str) -> Any:
    for part in path.split("."):
        data = data.get(part) if isinstance(data, dict) else None
    return data
