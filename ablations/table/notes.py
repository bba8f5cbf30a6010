"""Notes: the lines below a table that affect how its rows are read, such as failed seeds or unequal arms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ablations.statistics.design import decidable
from ablations.statistics.factor_effects import count_tests
from ablations.statistics.outcome import MISSING, Outcome, arms_not_ended, teachers
from ablations.statistics.paired import FAMILY_WISE, counted
from ablations.statistics.power import LARGEST_SAMPLE, POWER, seeds_for_equivalence, seeds_to_detect, upper_deviation
from ablations.statistics.verdicts import Contrast
from ablations.statistics.winners import Tuned, budgets
from ablations.study.arms import brief_label, short, value_at
from ablations.study.plan import Run
from ablations.study.schema import Study

MAX_SEED_NOTES = 5
"""The most undecided contrasts with a note on the seeds they need: a grid of a hundred would fill screens."""


def notes_on(study: Study, runs: Sequence[Run], outcomes: Mapping[str, Outcome]) -> list[str]:
    """A line for everything that affects how the rows are read, the most important first."""
    notes = [*unfinished(study, runs, outcomes), *([decidable(study)] if study.pairs else [])]
    if arms_not_ended(runs, outcomes):
        notes.append(
            "not yet: verdicts are computed once all seeds of both arms have ended; testing earlier would raise the "
            "error rate"
        )
    if study.margin is not None:
        notes.append(
            f"equivalent: within ±{study.margin:g} points by two one-sided t tests, which are in one family with the "
            f"tests of differences, at {FAMILY_WISE * 100:g} %"
        )
    if len(teachers(runs)) == 1:
        notes.append("conditional on one teacher: another may order the arms differently")
    if study.compared.left_out:
        notes.append(f"grid points left out because of requires or excludes: {study.compared.left_out}")
    return notes + _unequal(study, runs)


def seed_notes(study: Study, contrasts: Sequence[Contrast], look: int, not_made: int) -> list[str]:
    """The look that a study with looks has reached and the runs `not_made`; the seeds that undecided contrasts need.

    These seeds are a range, from the measured standard deviation of the differences to its upper confidence limit, for
    the margin or, without one, for a difference as large as the measured one.
    """
    notes = []
    if study.looks:
        state = "now" if any(one.pending for one in contrasts) else "ended"
        notes.append(
            f"{state} at {look} seeds, {not_made} runs not made; an undecided contrast continues to the next look, and "
            "verdicts are corrected for all looks; after an early stop estimates are biased away from zero (95 % "
            "intervals cover about 91 %)"
        )
    undecided = [one for one in contrasts if one.verdict == "undecided"]
    needed = [text for one in undecided[:MAX_SEED_NOTES] if (text := _seeds_needed(study, one))]
    if needed:
        if len(undecided) > MAX_SEED_NOTES:
            needed.append(f"and for {counted(len(undecided) - MAX_SEED_NOTES, 'more contrast')}")
        needed.append("do not add seeds after seeing this result: the error rate would rise; start a new study")
    return notes + needed


def pair_notes(contrasts: Sequence[Contrast], scores: Mapping[str, Mapping[int, float]]) -> list[str]:
    """A line where differences are not those of the means shown, as arms have scores of different seeds."""
    pairs = [(name, one.found.n) for one in contrasts if one.found.n for name in (one.arm, one.reference)]
    if all(len(scores[name]) == n for name, n in pairs):
        return []
    return ["a difference is over the seeds that both arms have, a mean over all seeds of its arm"]


def _seeds_needed(study: Study, contrast: Contrast) -> str:
    found, m = contrast.found, count_tests(study)
    size = study.margin or abs(found.difference)
    if found.n < 2 or not found.deviation or not size:
        return ""
    deviations = (found.deviation, upper_deviation(found.deviation, found.n))
    difference, equivalence = (
        _more([needed(size, deviation, m) for deviation in deviations], found.n)
        for needed in (seeds_to_detect, seeds_for_equivalence)
    )
    return (
        f"more seeds for {POWER * 100:g} % power: {contrast.arm} vs {contrast.reference}: {difference} to detect a "
        f"difference of {size:.2g}, {equivalence} for equivalence within ±{size:.2g}"
    )


def _more(totals: Sequence[int | None], n: int) -> str:
    few, many = (str(max(total - n, 0)) if total is not None else f"over {LARGEST_SAMPLE}" for total in totals)
    return few if few == many else f"{few} to {many}"


def unfinished(study: Study, runs: Sequence[Run], outcomes: Mapping[str, Outcome]) -> list[str]:
    """A line for each arm and each reason why some of its seeds have no score."""
    lines: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        outcome = outcomes.get(run.key, MISSING)
        if outcome.status != "finished":
            why = outcome.reason or ("not run yet" if outcome.status == "missing" else outcome.status)
        elif math.isfinite(outcome.metrics.get(study.metric, math.nan)):
            continue
        else:
            why = f"finished, but {study.metric} is missing or not finite"
        lines.setdefault((run.arm, why), []).append(str(run.seed))
    return [
        f"not finished: {arm} {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(seeds)}: {why}"
        for (arm, why), seeds in lines.items()
    ]


def _unequal(study: Study, runs: Sequence[Run]) -> list[str]:
    """Settings beside the one in question that differ between the arms of a contrast and could explain it."""
    configs = {run.arm: run.config.model_dump(mode="json") for run in runs if run.role == "arm"}
    return [
        f"unequal: {path} is {ours} in {arm}, {theirs} in {reference}"
        for arm, reference in study.pairs
        for path in ("optim.epochs", "optim.global_batch", "student.init")
        if (ours := value_at(configs[arm], path)) != (theirs := value_at(configs[reference], path))
    ]


def tuning_notes(study: Study, tuned: Mapping[str, Tuned]) -> list[str]:
    """How the arms were tuned, whether with unequal budgets, and the best trial of each search."""
    if study.tune_each is None:
        return []
    each = study.tune_each
    notes = _unequal_budgets(study, tuned)
    notes.append(
        f"tuned with {each.sampler} on seed {each.train_seed}, which is not in the table, by {each.metric} on samples "
        f"held out of train, never by {study.metric}; the best trial of each arm was trained again on the rest of train"
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
        listed = "; ".join(f"{trials} for {', '.join(arms)}" for trials, arms in sorted(by_budget.items()))
        notes.append(
            f"unequal: trials of the arms' searches differ in number, which could explain a difference: {listed}"
        )
    for arm, found in tuned.items():
        failed = [trial for trial in found.trials if trial.state == "failed"]
        if failed:
            why = failed[0].reason or "no reason given"
            notes.append(
                f"unequal: {len(failed)} of the {found.search.trials} trials of {arm} failed, the first: {why}"
            )
    return notes
