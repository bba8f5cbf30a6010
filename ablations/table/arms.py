"""Table of arms: from the outcomes of a study's runs to rows and notes. Pure data; text.py and latex.py format it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ablations.statistics.holm import FAMILY_WISE
from ablations.statistics.outcome import Outcome, protocol, scores_by_arm, teachers
from ablations.statistics.paired import mean_std
from ablations.statistics.pareto import pareto_notes
from ablations.statistics.reproduction import Reproduction, reproduction_notes, reproductions
from ablations.statistics.verdicts import Contrast, study_verdicts
from ablations.statistics.winners import Tuned, budgets
from ablations.study.arms import cost_label
from ablations.study.metric import conditions, described, on_test, reads_test
from ablations.study.plan import Run, by_arm
from ablations.study.schema import Study
from ablations.table.costs import cost_notes, costs_of
from ablations.table.effects import effects_table
from ablations.table.lacking import ranged, seeds_lacking
from ablations.table.notes import notes_on, pair_notes, seed_notes, tuning_notes, unequal
from ablations.table.shape import Column, Row, Table, difference, number
from ablations.table.short_notes import next_step, short_notes
from trainer.config import counted, parse

_HEADINGS = {
    "arm": Column("arm"),
    "trials": Column("trials", right=True),
    "n": Column("n", right=True),
    "score": Column("mIoU", right=True),
    "reference": Column("vs"),
    "difference": Column("difference [interval]", right=True),
    "verdict": Column("verdict"),
    "best": Column("best", right=True),
    "published": Column("published", right=True),
    "reproduced": Column("reproduced"),
    "lacking": Column("seeds lacking", right=True),
    "params_m": Column("params (M)", right=True),
    "gmacs_paper": Column("GMACs (paper)", right=True),
    "gmacs": Column("GMACs (all)", right=True),
    "latency_ms": Column("ms", right=True),
    "peak_mib": Column("MiB", right=True),
}
_DIGITS = {"trials": 0, "best": 1, "latency_ms": 1, "peak_mib": 0}
"""Decimals of the columns that do not have two."""
_COSTS = ("params_m", "gmacs_paper", "gmacs")
"""Columns where values below 0.01 are shown with three significant digits, as two decimals would hide them."""


def build_table(
    study: Study,
    runs: Sequence[Run],
    outcomes: Mapping[str, Outcome],
    costs: Mapping[str, Mapping[str, Any]] | None = None,
    tuned: Mapping[str, Tuned] | None = None,
) -> Table:
    """The table of a study with arms. `outcomes` and `costs` (see `costs_of`) are by `Run.key`, `tuned` by arm."""
    planned = len(runs)
    runs, found, look = study_verdicts(study, runs, outcomes)
    arms, scores = by_arm(runs), scores_by_arm(study, runs, outcomes)
    contrasts = _contrasts(study, found)
    cost, reproduced = costs_of(arms, costs or {}), reproductions(study, runs, outcomes)
    trials = {arm: {"trials": count} for arm, count in budgets(study).items()}
    rows = []
    for arm, group in arms.items():
        own = contrasts.get(arm, [])
        first = own[0] if own else {"reference": "-" if contrasts else ""}
        about = _about(study, arm, group, scores[arm], outcomes, reproduced)
        about |= _by_condition(study, group, scores[arm], outcomes) | _on_test(study, group, outcomes)
        rows.append(about | trials.get(arm, {}) | cost.get(arm, {}) | first)
        rows += [{"arm": arm, "again": True} | row for row in own[1:]]
    differ = unequal(study, runs, tuned or {})
    explained = [
        *notes_on(study, runs, outcomes),
        *differ,
        *pair_notes(study, found, scores),
        *seed_notes(study, found, look, planned - len(runs)),
        *tuning_notes(study, tuned or {}),
        *reproduction_notes(study, reproduced),
        *cost_notes(study, arms, cost),
        *pareto_notes(rows),
    ]
    recipes = any(row.differs or row.unknown for row in reproduced.values())
    more = effects_table(study, runs, outcomes)
    headings = _headings(study, runs)
    shown = [name for name in headings if any(_cell(name, row) for row in rows)]
    return Table(
        title=_title(study, runs, scores),
        columns=tuple(headings[name] for name in shown),
        rows=tuple(Row(tuple(_cell(name, row) for name in shown), row) for row in rows),
        notes=tuple(short_notes(study, runs, outcomes, unequal=bool(differ), recipes=recipes)),
        more=more,
        next_step=next_step(study, runs, outcomes, found),
        explained=tuple(explained),
    )


def _headings(study: Study, runs: Sequence[Run]) -> dict[str, Column]:
    """All columns in their order; those of a data set's conditions and of its test split follow the verdict."""
    found: dict[str, Column] = {}
    for name, column in _HEADINGS.items():
        found[name] = column
        if name == "verdict":
            found |= {condition: Column(condition, right=True) for condition in conditions(parse(study.base))}
            found |= {"test": Column("test mIoU", right=True)} if reads_test(run.config for run in runs) else {}
    return found


def _about(
    study: Study,
    arm: str,
    group: Sequence[Run],
    scores: Mapping[int, float],
    outcomes: Mapping[str, Outcome],
    reproduced: Mapping[str, Reproduction],
) -> dict[str, Any]:
    mean, std = mean_std(list(scores.values()))
    bests = [outcomes[r.key].best.get(study.metric, math.nan) for r in group if r.seed in scores]
    published = reproduced.get(arm)
    return {
        "arm": arm,
        "role": group[0].role,
        "n": len(scores),
        "seeds": len(group),
        "mean": mean,
        "std": std,
        # Shown for comparison with published numbers, which are of the best epoch; verdicts use the last epoch.
        "best": mean_std(bests)[0] if reproduced else math.nan,
        "published": published.published if published else None,
        "reproduced": published.verdict if published else "",
        **{f"seed {seed}": scores.get(seed) for seed in sorted(run.seed for run in group)},
    }


def _by_condition(
    study: Study, group: Sequence[Run], scores: Mapping[int, float], outcomes: Mapping[str, Outcome]
) -> dict[str, float]:
    """The mean of each condition over the seeds that have a score."""
    ended = [outcomes[run.key].metrics for run in group if run.seed in scores]
    return {
        condition: mean_std([metrics.get(f"val/{condition}/miou", math.nan) for metrics in ended])[0]
        for condition in conditions(parse(study.base))
    }


def _on_test(study: Study, group: Sequence[Run], outcomes: Mapping[str, Outcome]) -> dict[str, float]:
    """Mean and deviation of the study's metric on test, of the same last epochs; empty where test was not read."""
    if not reads_test(run.config for run in group):
        return {}
    values = [outcomes[run.key].metrics.get(on_test(study.metric), math.nan) for run in group if run.key in outcomes]
    mean, std = mean_std([value for value in values if math.isfinite(value)])
    return {"test": mean, "test_std": std}


def _contrasts(study: Study, found: Sequence[Contrast]) -> dict[str, list[dict[str, Any]]]:
    """The contrasts of each arm that has any, as values of its rows."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for one in found:
        row = {"reference": one.reference, **one.found.values(), "verdict": one.verdict}
        if one.verdict == "undecided":
            row |= seeds_lacking(study, one)
        rows.setdefault(one.arm, []).append(row)
    return rows


def _cell(name: str, row: Mapping[str, Any]) -> str:
    if name == "arm":
        return "" if row.get("again") else row["arm"]
    if name == "n":
        if "n" not in row:
            return ""
        return str(row["n"]) if row["n"] == row["seeds"] else f"{row['n']}/{row['seeds']}"
    if name == "score":
        spread = f" ± {number(row['std'])}" if row.get("n", 0) > 1 else ""
        return number(row["mean"]) + spread if "mean" in row else ""
    if name == "difference":
        if "pairs" not in row:
            return ""
        return difference(row["difference"], row["interval_low"], row["interval_high"], row["pairs"])
    if name == "test" and math.isfinite(row.get("test_std", math.nan)):
        return f"{number(row['test'])} ± {number(row['test_std'])}"
    if name in ("reference", "verdict", "reproduced"):
        return row.get(name, "")
    if name == "lacking":
        return ranged(row["lacking_least"], row["lacking_most"]) if "lacking_least" in row else ""
    value = row.get(name)
    if value is None or math.isnan(value):
        return ""
    if name in _COSTS:
        return cost_label(value)
    return number(value, _DIGITS.get(name, 2 if name in _HEADINGS else 1))


def _title(study: Study, runs: Sequence[Run], scores: Mapping[str, Mapping[int, float]]) -> str:
    seeds = counted(len(study.seeds), "seed")
    if study.looks:
        seeds = f"{study.looks[0]} to {seeds} as needed"
    parts = [f"{described(study.metric)} ({protocol(study)} protocol)", "last epoch", seeds]
    taught = teachers(runs)
    if len(taught) == 1:
        trained = [score for run in runs if run.role == "teacher" for score in scores[run.arm].values()]
        stated = taught[0].teacher.miou if taught[0].teacher else None
        score = trained[0] if trained else stated
        parts.append(f"one teacher ({number(score)})" if score is not None else "one teacher")
    elif taught:
        parts.append(f"{len(taught)} teachers")
    return f"{study.name}   {', '.join(parts)}, family-wise {FAMILY_WISE * 100:g} %"
