"""Sequential: a study that adds seeds until its contrasts are decided; which are due, and what the looks have said.

A pure function of the outcomes, so a study that was killed anywhere goes on as if it had not been.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ablations.statistics.outcome import MISSING, Outcome, scores_of
from ablations.statistics.paired import Comparison, Verdict, adjust, comparison, paired, verdict
from ablations.statistics.sequential_test import differ_p, same_p
from ablations.study.plan import Run
from ablations.study.schema import Study


@dataclass(frozen=True)
class Course:
    """How far a study with looks has come."""

    look: int
    """Seeds of the last look that was begun."""
    due: dict[str, int]
    """Arm -> how many of the study's seeds it is to have by now; a reference has as many as any arm it is for."""
    comparisons: list[Comparison]
    """One a contrast, of the pairs it was judged by. Those of `pending` ones are undecided so far."""
    pending: frozenset[tuple[str, str]]
    """Undecided contrasts of a look whose runs have not all ended."""


def follow(study: Study, ended: Mapping[str, Collection[int]], scores: Mapping[str, Mapping[int, float]]) -> Course:
    """The looks of a study as far as its runs have `ended` (arm -> seeds, failed ones too).

    All contrasts that are undecided at a look go on together to the next, and a verdict stands. A contrast whose pairs
    have all failed does not go on.
    """
    m = len(study.pairs)
    blocks = {pair: _blocks(study, scores, pair) for pair in study.pairs}
    # After look k these depend on the pairs up to look k alone, so all looks can be asked at once.
    differ = {pair: differ_p(found, study.looks, m) for pair, found in blocks.items()}
    same = {pair: same_p(found, study.looks, study.margin) for pair, found in blocks.items()} if study.margin else {}
    words: dict[tuple[str, str], Verdict] = dict.fromkeys(study.pairs, "undecided")
    judged = dict.fromkeys(study.pairs, -1)  # the number of the last look at which a contrast was judged
    due = dict.fromkeys(study.compared.overrides, study.looks[0])
    undecided, p, pending = list(study.pairs), [1.0] * m, frozenset[tuple[str, str]]()
    for k, look in enumerate(study.looks):
        due |= {arm: look for pair in undecided for arm in pair}
        if any(set(study.seeds[:look]) - set(ended.get(arm, ())) for pair in undecided for arm in pair):
            pending = frozenset(undecided)
            break
        judged |= dict.fromkeys(undecided, k)
        p, p_same = adjust(
            [differ[pair][judged[pair]] for pair in study.pairs],
            [same[pair][judged[pair]] for pair in study.pairs] if same else [],
        )
        for pair, one, other in zip(study.pairs, p, p_same, strict=True):
            if pair in undecided:
                words[pair] = verdict(_joined(blocks[pair], k), one, other)
        undecided = [pair for pair in undecided if words[pair] == "undecided" and _joined(blocks[pair], k).size]
        if not undecided:
            break
    shown = [_joined(blocks[pair], judged[pair] + (pair in pending)) for pair in study.pairs]
    found = [comparison(d, one, words[pair]) for d, one, pair in zip(shown, p, study.pairs, strict=True)]
    return Course(look, due, found, pending)


def course(study: Study, runs: Sequence[Run], outcomes: Mapping[str, Outcome]) -> Course:
    """How far a study with looks has come, from the outcomes of its runs by `Run.key`."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if run.role == "arm":
            groups.setdefault(run.arm, []).append(run)
    ended = {
        arm: {run.seed for run in group if outcomes.get(run.key, MISSING).status in ("finished", "failed")}
        for arm, group in groups.items()
    }
    return follow(study, ended, {arm: scores_of(study, group, outcomes) for arm, group in groups.items()})


def due(study: Study, runs: Sequence[Run], outcomes: Mapping[str, Outcome]) -> list[Run]:
    """The runs that are to stand by now, those that have ended included: all, but for seeds of later looks."""
    return due_at(study, runs, course(study, runs, outcomes)) if study.looks else list(runs)


def due_at(study: Study, runs: Sequence[Run], came: Course) -> list[Run]:
    """`due`, for a course that is known."""
    return [run for run in runs if run.role != "arm" or study.seeds.index(run.seed) < came.due[run.arm]]


def if_needed(study: Study, run: Run) -> bool:
    """Whether a run belongs to a later look, and is made only where the first has not decided."""
    return bool(study.looks) and run.role == "arm" and study.seeds.index(run.seed) >= study.looks[0]


def _blocks(study: Study, scores: Mapping[str, Mapping[int, float]], pair: tuple[str, str]) -> list[np.ndarray]:
    """The paired differences that each look adds, as far as there are any."""
    arm, reference = (scores.get(name, {}) for name in pair)
    return [
        paired({seed: arm[seed] for seed in study.seeds[start:stop] if seed in arm}, reference)
        for start, stop in itertools.pairwise((0, *study.looks))
    ]


def _joined(blocks: Sequence[np.ndarray], look: int) -> np.ndarray:
    return np.concatenate(blocks[: look + 1])
