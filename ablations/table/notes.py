"""Notes: what must be read with a table, from seeds that failed to arms that differ in more than they should."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ablations.statistics.design import reach
from ablations.statistics.factor_effects import tests_of
from ablations.statistics.outcome import MISSING, Outcome, teachers
from ablations.statistics.paired import FAMILY_WISE
from ablations.statistics.power import MOST_SEEDS, POWER, seeds_to_exclude, seeds_to_see, upper_deviation
from ablations.statistics.verdicts import Contrast
from ablations.statistics.winners import Tuned, budgets
from ablations.study.arms import brief_label, short
from ablations.study.plan import Run
from ablations.study.schema import Study

MOST_LACKING = 5
"""Undecided contrasts, the first of the table, whose lacking seeds are told: a grid of a hundred would fill screens."""


def notes_on(study: Study, runs: Sequence[Run], outcomes: Mapping[str, Outcome]) -> list[str]:
    """A line for each thing that would change how the rows are read, the most urgent first."""
    notes = [*unfinished(study, runs, outcomes), *([reach(study)] if study.pairs else [])]
    if any(outcomes.get(run.key, MISSING).status in ("missing", "running") for run in runs):
        notes.append("not yet: no verdict before all seeds of both arms have ended, for each look would be a test")
    if study.margin is not None:
        notes.append(
            f"equivalent: within ±{study.margin:g} points by two one-sided t tests; with the tests of differences a "
            f"single family at {FAMILY_WISE * 100:g} %"
        )
    if len(teachers(runs)) == 1:
        notes.append("conditional on one teacher: another may order the arms differently")
    if study.compared.left_out:
        notes.append(f"grid points left out, for they contradict requires or excludes: {study.compared.left_out}")
    return notes + _unequal(study, runs)


def seed_notes(study: Study, contrasts: Sequence[Contrast], look: int, spared: int) -> list[str]:
    """How far a study with looks has come, with the runs it was `spared`; and the seeds that undecided contrasts lack.

    What is lacked is told from the measured deviation of the differences to its upper confidence limit, for the margin
    or, without one, for a difference as large as the measured one.
    """
    notes = []
    if study.looks:
        state = "now" if any(one.pending for one in contrasts) else "ended"
        notes.append(
            f"{state} at {look} seeds, {spared} runs not made; an undecided contrast goes on to the next look, and "
            "verdicts allow for all looks; differences do not, and lean outwards after an early end"
        )
    undecided = [one for one in contrasts if one.verdict == "undecided"]
    lacking = [text for one in undecided[:MOST_LACKING] if (text := _lacking(study, one))]
    if lacking:
        if len(undecided) > MOST_LACKING:
            lacking.append(f"and for {len(undecided) - MOST_LACKING} contrasts more")
        lacking.append("seeds added now are one more look: plan a new study for them")
    return notes + lacking


def pair_notes(contrasts: Sequence[Contrast], scores: Mapping[str, Mapping[int, float]]) -> list[str]:
    """Why a difference is not that of the two means beside it, where it is not."""
    pairs = [(name, one.found.n) for one in contrasts if one.found.n for name in (one.arm, one.reference)]
    if all(len(scores[name]) == n for name, n in pairs):
        return []
    return ["a difference is over the seeds that both arms have, a mean over all that its arm has"]


def _lacking(study: Study, contrast: Contrast) -> str:
    found, m = contrast.found, tests_of(study)
    size = study.margin or abs(found.difference)
    if found.n < 2 or not found.deviation or not size:
        return ""
    deviations = (found.deviation, upper_deviation(found.deviation, found.n))
    see, exclude = (
        _more([needed(size, deviation, m) for deviation in deviations], found.n)
        for needed in (seeds_to_see, seeds_to_exclude)
    )
    return (
        f"more seeds for {POWER * 100:g} % power: {contrast.arm} vs {contrast.reference}: {see} to see a difference of "
        f"{size:.2g}, {exclude} to exclude one"
    )


def _more(totals: Sequence[int | None], n: int) -> str:
    few, many = (str(max(total - n, 0)) if total is not None else f"over {MOST_SEEDS}" for total in totals)
    return few if few == many else f"{few} to {many}"


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


def tuning_notes(study: Study, tuned: Mapping[str, Tuned]) -> list[str]:
    """How the arms were tuned, by unequal budgets if so, and what each search settled on."""
    if study.tune_each is None:
        return []
    each = study.tune_each
    notes = _unequal_budgets(study, tuned)
    notes.append(
        f"tuned by {each.sampler} on seed {each.train_seed}, which is none of the table's, by {each.metric} of samples "
        f"held out of train; {study.metric} was not selected by. Winners were trained again on the rest of train"
    )
    for arm, found in tuned.items():
        if won := found.winner:
            values = ", ".join(f"{short(path)}={brief_label(value)}" for path, value in won.values.items())
            score = f"{each.metric} {won.metrics[each.metric]:.1f}"
            notes.append(f"tuned: {arm}: {values} (trial {won.number} of {found.search.trials}, {score})")
    return notes


def _unequal_budgets(study: Study, tuned: Mapping[str, Tuned]) -> list[str]:
    by_budget: dict[int, list[str]] = {}
    for arm, trials in budgets(study).items():
        by_budget.setdefault(trials, []).append(arm)
    notes = []
    if len(by_budget) > 1:
        listed = "; ".join(f"{trials} in {', '.join(arms)}" for trials, arms in sorted(by_budget.items()))
        notes.append(f"unequal: trials of the arms' searches are {listed}: tuning alone could make the difference")
    for arm, found in tuned.items():
        failed = [trial for trial in found.trials if trial.state == "failed"]
        if failed:
            why = failed[0].reason or "no reason given"
            notes.append(
                f"unequal: {len(failed)} of the {found.search.trials} trials of {arm} failed, the first: {why}"
            )
    return notes
