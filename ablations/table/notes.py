"""Notes: sentences on everything that affects how the rows of a table are read, for `transkd explain` and the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Sized

from ablations.statistics.design import decidable
from ablations.statistics.factor_effects import count_tests
from ablations.statistics.holm import FAMILY_WISE
from ablations.statistics.outcome import MISSING, Outcome, arms_not_ended, teachers
from ablations.statistics.power import POWER
from ablations.statistics.verdicts import Contrast
from ablations.statistics.winners import Tuned, budgets
from ablations.study.arms import brief_label, short, value_at
from ablations.study.metric import reads_test
from ablations.study.plan import Run
from ablations.study.schema import Study
from ablations.table.lacking import ranged, seeds_lacking
from trainer.config import counted

SIGN_FLIP = "an exact two-sided sign-flip test of the differences paired by seed"
PAIRED_INTERVALS = "Student's t interval of 95 % (low, high) and the bootstrap interval are in table.csv."


def notes_on(study: Study, runs: Sequence[Run], outcomes: Mapping[str, Outcome]) -> list[str]:
    """A sentence for everything that affects how the rows are read, the most important first."""
    notes = [*unfinished(study, runs, outcomes)]
    if study.pairs:
        looks = " and over all looks" if study.looks else ""
        notes += verdict_notes(SIGN_FLIP, f"{counted(count_tests(study), 'test')}{looks}", study.margin)
        notes += [PAIRED_INTERVALS, sentence(decidable(study))]
    if arms_not_ended(runs, outcomes):
        notes.append(
            "A verdict is not yet computed where seeds of either arm have not ended: testing earlier would raise the "
            "error rate."
        )
    if len(teachers(runs)) == 1:
        notes.append("The results are conditional on one teacher: another may order the arms differently.")
    if reads_test(run.config for run in runs):
        notes.append(
            "The column test mIoU is of the test split, on which the student of the last epoch is evaluated once; no "
            "verdict, search or number of seeds depends on it."
        )
    if study.compared.left_out:
        notes.append(f"Grid points that requires or excludes leave out: {study.compared.left_out}.")
    return notes


def verdict_notes(test: str, family: str, margin: float | None, unit: str = " points") -> list[str]:
    """How differences are tested, in a `family` such as `3 tests`, and what the intervals are."""
    level = f"{FAMILY_WISE * 100:g} %"
    notes = [
        f"A verdict is {test}, corrected by Holm's procedure over {family}, at {level} family-wise.",
        "The interval of a difference holds the values that this test does not reject at the level at which Holm's "
        f"procedure applies it, between {level} divided by the number of tests and {level}. So it excludes 0 exactly "
        "where the verdict is better or worse, and each interval covers its true difference with a probability of at "
        f"least {100 - FAMILY_WISE * 100:g} %. It is [n too small] where so few seeds cannot reach the level.",
    ]
    if margin is not None:
        notes.append(
            f"Equivalent means that the difference lies within ±{margin:g}{unit}, by two one-sided t tests in one "
            "family with the tests of differences. The interval of such a row inverts these t tests."
        )
    return notes


def seed_notes(study: Study, contrasts: Sequence[Contrast], look: int, not_made: int) -> list[str]:
    """The look that a study with looks has reached and the runs `not_made`; the seeds that undecided contrasts lack."""
    notes = []
    if study.looks:
        state = "is" if any(one.pending for one in contrasts) else "ended"
        needless = f"{counted(not_made, 'run')} {'was' if not_made == 1 else 'were'}"
        notes.append(
            f"The study {state} at its look at {look} seeds, and {needless} not needed. An undecided contrast "
            "continues to the next look. After an early stop a mean difference is biased away from 0. Verdicts and "
            "intervals allow for all looks; the 95 % intervals in table.csv do not."
        )
    return notes + lacking_notes(contrasts, study.margin, count_tests(study))


def lacking_notes(contrasts: Sequence[Contrast], margin: float | None, tests: int, unit: str = " points") -> list[str]:
    """The seeds that undecided contrasts lack, in a family of so many tests."""
    undecided = [one for one in contrasts if one.verdict == "undecided"]
    lacking = [(one, row) for one in undecided if (row := seeds_lacking(one, margin, tests))]
    if not lacking:
        return []
    size = f"±{margin:g}{unit}, the margin" if margin else "the size of the measured one"
    return [
        "Seeds lacking are those that an undecided contrast would need in addition to detect a difference of "
        f"{size}, with {POWER * 100:g} % power. The range is from the measured standard deviation of its paired "
        "differences to the upper confidence limit of that deviation. Equivalence is shown by t tests, which can "
        "need fewer seeds than the sign-flip test of a difference.",
        *(
            f"Equivalence of {one.arm} and {one.reference} within ±{row['lacking_for']:.2g}{unit} would take "
            f"{ranged(row['same_least'], row['same_most'])} more seeds."
            for one, row in lacking
        ),
        "Seeds must not be added to a study after its result was seen, as the error rate would rise: plan a new study.",
    ]


def pair_notes(contrasts: Sequence[Contrast], scores: Mapping[str, Sized]) -> list[str]:
    """A line where differences are not those of the means shown, as arms have scores of different seeds."""
    pairs = [(name, one.found.n) for one in contrasts if one.found.n for name in (one.arm, one.reference)]
    if all(len(scores[name]) == n for name, n in pairs):
        return []
    return ["A difference is over the seeds that both arms have, a mean over all seeds of its arm."]


def sentence(text: str) -> str:
    """Text that begins with a capital letter and ends with a full stop."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def unfinished(study: Study, runs: Sequence[Run], outcomes: Mapping[str, Outcome]) -> list[str]:
    """A sentence for each arm and each reason why some of its seeds have no score."""
    lines: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        outcome = outcomes.get(run.key, MISSING)
        if outcome.status != "finished":
            reason = outcome.reason or ("not run yet" if outcome.status == "missing" else outcome.status)
            why = f"did not finish: {reason}"
        elif math.isfinite(outcome.metrics.get(study.metric, math.nan)):
            continue
        else:
            why = f"finished without a score: {study.metric} is missing or not finite"
        lines.setdefault((run.arm, why), []).append(str(run.seed))
    return [
        f"{arm} {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(seeds)} {why}."
        for (arm, why), seeds in lines.items()
    ]


def unequal(study: Study, runs: Sequence[Run], tuned: Mapping[str, Tuned]) -> list[str]:
    """Settings beside the one in question that differ between the arms of a contrast and could explain it."""
    configs = {run.arm: run.config.model_dump(mode="json") for run in runs if run.role == "arm"}
    return [
        f"Unequal: {path} is {ours} in {arm} and {theirs} in {reference}, which could explain their difference."
        for arm, reference in study.pairs
        for path in ("optim.epochs", "optim.global_batch", "student.init")
        if (ours := value_at(configs[arm], path)) != (theirs := value_at(configs[reference], path))
    ] + _unequal_budgets(study, tuned)


def tuning_notes(study: Study, tuned: Mapping[str, Tuned]) -> list[str]:
    """How the arms were tuned, and the best trial of each search."""
    if study.tune_each is None:
        return []
    each = study.tune_each
    notes = [
        f"Arms were tuned with {each.sampler} on seed {each.train_seed}, which is not in the table, by {each.metric} "
        f"on samples held out of train, never by {study.metric}. The best trial of each arm was trained again on the "
        "rest of train."
    ]
    for arm, found in tuned.items():
        if won := found.winner:
            values = ", ".join(f"{short(path)}={brief_label(value)}" for path, value in won.values.items())
            score = f"{each.metric} {won.metrics[each.metric]:.1f}"
            notes.append(f"{arm} was tuned to {values} (trial {won.number} of {found.search.trials}, {score}).")
    return notes


def _unequal_budgets(study: Study, tuned: Mapping[str, Tuned]) -> list[str]:
    by_budget: dict[int, list[str]] = {}
    for arm, trials in budgets(study).items():
        by_budget.setdefault(trials, []).append(arm)
    notes = []
    if len(by_budget) > 1:
        listed = "; ".join(f"{trials} for {', '.join(arms)}" for trials, arms in sorted(by_budget.items()))
        notes.append(
            f"Unequal: the arms' searches differ in their number of trials, which could explain a difference: {listed}."
        )
    for arm, found in tuned.items():
        failed = [trial for trial in found.trials if trial.state == "failed"]
        if failed:
            why = failed[0].reason or "no reason given"
            notes.append(
                f"Unequal: {len(failed)} of {counted(found.search.trials, 'trial')} of {arm} failed, the first with: "
                f"{why}."
            )
    return notes
