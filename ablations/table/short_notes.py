"""Short notes: at most three lines below a table, and one that says what to do next. notes.py has the sentences."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence

from ablations.statistics.factor_effects import count_tests, effects_tested
from ablations.statistics.outcome import MISSING, Outcome
from ablations.statistics.paired import can_decide, seeds_needed
from ablations.statistics.sequential_test import first_look
from ablations.statistics.verdicts import Contrast
from ablations.study.plan import Run
from ablations.study.schema import Study
from ablations.table.shape import MOST_NOTES
from trainer.config import counted


def short_notes(
    study: Study,
    runs: Sequence[Run],
    outcomes: Mapping[str, Outcome],
    *,
    unequal: bool,
    recipes: bool,
) -> list[str]:
    """The most important of what affects how rows are read. `unequal`: arms differ in more than what is compared;
    `recipes`: published numbers stand beside runs of other settings."""
    states = _states(runs, outcomes)
    left = states.total() - states["finished"]
    notes = []
    if left:
        listed = ", ".join(f"{count} {state}" for state, count in states.items() if state != "finished")
        notes.append(f"not finished: {left} of {counted(len(runs), 'run')}: {listed}")
    if unequal:
        notes.append("unequal: arms differ in more than what is compared")
    if recipes:
        notes.append("recipe differs: published numbers are of other settings")
    if study.pairs:
        effects = effects_tested(study)
        m = counted(len(study.pairs), "contrast") + (f" and {counted(effects, 'effect')}" if effects else "")
        notes.append(decision_note(counted(len(study.seeds), "seed"), m, able=_can_decide(study)))
    if study.margin is not None:
        notes.append(f"equivalent: differs by less than {study.margin:g} points")
    return notes[: room(study)]


def decision_note(seeds: str, tests: str, *, able: bool) -> str:
    """Whether `3 seeds` are able to decide `2 contrasts` and, where they are, what the intervals are."""
    if not able:
        return f"n too small: {seeds} cannot decide {tests} at 5 %"
    return "[interval]: the differences that the test does not reject, at 5 % family-wise"


def room(study: Study) -> int:
    """The short notes that a study's table has room for: with verdicts, one more says what bold means."""
    return MOST_NOTES - bool(study.pairs)


def next_step(study: Study, runs: Sequence[Run], outcomes: Mapping[str, Outcome], contrasts: Sequence[Contrast]) -> str:
    """What to do next, and where the table is explained."""
    states, name = _states(runs, outcomes), shlex.quote(study.name)
    if to_come := states["missing"] + states["running"]:
        step = f"transkd run {name} trains the {counted(to_come, 'run')} left"
    elif states["failed"]:
        step = f"transkd run {name} --retry-failed tries the {counted(states['failed'], 'failed run')} again"
    elif study.pairs and not _can_decide(study):
        step = f"a new study with at least {seeds_needed(count_tests(study))} seeds can decide"
    elif any(one.verdict == "undecided" for one in contrasts):
        step = "a new study with more seeds; none may be added to this one"
    else:
        step = "nothing is left to do"
    return f"next: {step}; transkd explain {name} explains the table"


def _states(runs: Sequence[Run], outcomes: Mapping[str, Outcome]) -> Counter[str]:
    return Counter(outcomes.get(run.key, MISSING).status for run in runs)


def _can_decide(study: Study) -> bool:
    """Whether the study's seeds can call one of its contrasts better or worse."""
    m = count_tests(study)
    return first_look(study.looks, m) is not None if study.looks else can_decide(len(study.seeds), m)
