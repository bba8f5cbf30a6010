"""Seed looks: a study that adds seeds until its contrasts are decided: which runs are due, and the verdicts so far.

A pure function of the outcomes, so a study that was killed continues exactly as one that was not.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ablations.statistics.outcome import MISSING, Outcome, scores_by_arm
from ablations.statistics.paired import Comparison, Verdict, adjust, comparison, paired, verdict
from ablations.statistics.sequential_test import differ_interval, differ_p, same_interval, same_p
from ablations.study.plan import Run, by_arm
from ablations.study.schema import Study


@dataclass(frozen=True)
class LookProgress:
    """The looks that a study has taken so far."""

    look: int
    """Seeds of the last look that was begun."""
    due: dict[str, int]
    """Arm -> how many of the study's seeds are due by now; a reference needs as many as any arm compared with it."""
    comparisons: list[Comparison]
    """One for each contrast, of the pairs at its last look, without intervals (see `with_intervals`). Those of
    `pending` contrasts are undecided so far."""
    pending: frozenset[tuple[str, str]]
    """Undecided contrasts of a look whose runs have not all ended."""
    judged: tuple[int, ...]
    """The number of the look at which each contrast was last judged; -1 before its first."""
    levels: tuple[float, ...]
    """The level at which each contrast was last judged; NaN before its first look."""


def take_looks(
    study: Study, ended: Mapping[str, Collection[int]], scores: Mapping[str, Mapping[int, float]]
) -> LookProgress:
    """The looks of a study as far as its runs have `ended` (arm -> seeds, failed ones too).

    All contrasts that are undecided at a look continue to the next; a verdict is final. A contrast whose pairs have all
    failed does not continue.
    """
    m = len(study.pairs)
    blocks = {pair: _blocks(study, scores, pair) for pair in study.pairs}
    # The p values of look k depend on the pairs up to look k alone, so those of all looks can be computed at once.
    differ = {pair: differ_p(found, study.looks, m) for pair, found in blocks.items()}
    same = {pair: same_p(found, study.looks, study.margin) for pair, found in blocks.items()} if study.margin else {}
    words: dict[tuple[str, str], Verdict] = dict.fromkeys(study.pairs, "undecided")
    judged = dict.fromkeys(study.pairs, -1)  # the number of the last look at which a contrast was judged
    due = dict.fromkeys(study.compared.overrides, study.looks[0])
    undecided, pending = list(study.pairs), frozenset[tuple[str, str]]()
    adjusted = adjust([1.0] * m, [])
    for k, look in enumerate(study.looks):
        due |= {arm: look for pair in undecided for arm in pair}
        if any(set(study.seeds[:look]) - set(ended.get(arm, ())) for pair in undecided for arm in pair):
            pending = frozenset(undecided)
            break
        judged |= dict.fromkeys(undecided, k)
        adjusted = adjust(
            [differ[pair][judged[pair]] for pair in study.pairs],
            [same[pair][judged[pair]] for pair in study.pairs] if same else [],
        )
        for pair, found in zip(study.pairs, adjusted, strict=True):
            if pair in undecided:
                words[pair] = verdict(_joined(blocks[pair], k), found.p_differ, found.p_same)
        undecided = [pair for pair in undecided if words[pair] == "undecided" and _joined(blocks[pair], k).size]
        if not undecided:
            break
    shown = [_joined(blocks[pair], judged[pair] + (pair in pending)) for pair in study.pairs]
    each = list(zip(study.pairs, adjusted, shown, strict=True))
    return LookProgress(
        look,
        due,
        [comparison(d, claims.p_differ, words[pair]) for pair, claims, d in each],
        pending,
        tuple(judged.values()),
        tuple(claims.level(words[pair]) if judged[pair] >= 0 else math.nan for pair, claims, _ in each),
    )


def with_intervals(study: Study, scores: Mapping[str, Mapping[int, float]], progress: LookProgress) -> list[Comparison]:
    """The comparisons of a study with looks, with the intervals that invert the tests of their verdicts; those of
    pending contrasts have none. Apart from `take_looks`, as a plan needs no intervals."""
    m, found = len(study.pairs), []
    for pair, one, k, level in zip(study.pairs, progress.comparisons, progress.judged, progress.levels, strict=True):
        if pair in progress.pending or k < 0:
            found.append(one)
            continue
        blocks = _blocks(study, scores, pair)[: k + 1]
        if one.verdict == "equivalent":
            low, high = same_interval(blocks, study.looks, level)
        else:
            low, high = differ_interval(blocks, study.looks, m, level)
        found.append(replace(one, level=level, low=low, high=high))
    return found


def look_progress(study: Study, runs: Sequence[Run], outcomes: Mapping[str, Outcome]) -> LookProgress:
    """The looks that a study has taken so far, from the outcomes of its runs by `Run.key`."""
    arms = [run for run in runs if run.role == "arm"]
    ended = {
        arm: {run.seed for run in group if outcomes.get(run.key, MISSING).ended} for arm, group in by_arm(arms).items()
    }
    return take_looks(study, ended, scores_by_arm(study, arms, outcomes))


def due(study: Study, runs: Sequence[Run], outcomes: Mapping[str, Outcome]) -> list[Run]:
    """The runs that the study needs by now, ended ones included: all of them, except seeds of later looks."""
    return due_at(study, runs, look_progress(study, runs, outcomes)) if study.looks else list(runs)


def due_at(study: Study, runs: Sequence[Run], progress: LookProgress) -> list[Run]:
    """`due` where the progress is known already."""
    return [run for run in runs if run.role != "arm" or study.seeds.index(run.seed) < progress.due[run.arm]]


def if_needed(study: Study, run: Run) -> bool:
    """Whether a run belongs to a later look, and is trained only where earlier looks have not decided."""
    return bool(study.looks) and run.role == "arm" and study.seeds.index(run.seed) >= study.looks[0]


def _blocks(study: Study, scores: Mapping[str, Mapping[int, float]], pair: tuple[str, str]) -> list[np.ndarray]:
    """The paired differences that each look adds, of the seeds that have a score in both arms."""
    arm, reference = (scores.get(name, {}) for name in pair)
    return [
        paired({seed: arm[seed] for seed in study.seeds[start:stop] if seed in arm}, reference)
        for start, stop in itertools.pairwise((0, *study.looks))
    ]


def _joined(blocks: Sequence[np.ndarray], look: int) -> np.ndarray:
    return np.concatenate(blocks[: look + 1])
