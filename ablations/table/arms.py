"""Table of arms: from the outcomes of a study's runs to rows and notes. Pure data; text.py and latex.py format it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ablations.statistics.factor_effects import count_tests
from ablations.statistics.holm import FAMILY_WISE
from ablations.statistics.outcome import Outcome, protocol, scores_by_arm, teachers
from ablations.statistics.paired import mean_std
from ablations.statistics.pareto import pareto_notes
from ablations.statistics.reproduction import Reproduction, reproduction_notes, reproductions
from ablations.statistics.verdicts import study_verdicts
from ablations.statistics.winners import Tuned, budgets
from ablations.study.metric import conditions, described, on_test, reads_test
from ablations.study.plan import Run, by_arm
from ablations.study.schema import Study
from ablations.table.costs import cost_notes, costs_of
from ablations.table.effects import effects_table
from ablations.table.notes import notes_on, pair_notes, seed_notes, tuning_notes, unequal
from ablations.table.rows import HEADINGS, arm_rows, contrast_rows, laid_out
from ablations.table.shape import Column, Table, number
from ablations.table.short_notes import next_step, short_notes
from trainer.config import counted, parse


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
    contrasts = contrast_rows(found, study.margin, count_tests(study))
    cost, reproduced = costs_of(arms, costs or {}), reproductions(study, runs, outcomes)
    trials = {arm: {"trials": count} for arm, count in budgets(study).items()}
    about = {}
    for arm, group in arms.items():
        own = _about(study, arm, group, scores[arm], outcomes, reproduced)
        own |= _by_condition(study, group, scores[arm], outcomes) | _on_test(study, group, outcomes)
        about[arm] = own | trials.get(arm, {}) | cost.get(arm, {})
    rows = arm_rows(about, contrasts)
    differ = unequal(study, runs, tuned or {})
    explained = [
        *notes_on(study, runs, outcomes),
        *differ,
        *pair_notes(found, scores),
        *seed_notes(study, found, look, planned - len(runs)),
        *tuning_notes(study, tuned or {}),
        *reproduction_notes(study, reproduced),
        *cost_notes(study, arms, cost),
        *pareto_notes(rows),
    ]
    recipes = any(row.differs or row.unknown for row in reproduced.values())
    more = effects_table(study, runs, outcomes)
    columns, shown = laid_out(rows, _headings(study, runs))
    return Table(
        title=_title(study, runs, scores),
        columns=columns,
        rows=shown,
        notes=tuple(short_notes(study, runs, outcomes, unequal=bool(differ), recipes=recipes)),
        more=more,
        next_step=next_step(study, runs, outcomes, found),
        explained=tuple(explained),
    )


def _headings(study: Study, runs: Sequence[Run]) -> dict[str, Column]:
    """All columns in their order; those of a data set's conditions and of its test split follow the verdict."""
    found: dict[str, Column] = {}
    for name, column in HEADINGS.items():
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
