"""Across: one verdict for each contrast over several studies with the same arms, and which studies can be compared."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ablations.statistics.outcome import Outcome, protocol
from ablations.statistics.paired import adjust, equivalence_p, verdict
from ablations.statistics.stratified import mean_of_means, stratified_interval, stratified_p
from ablations.statistics.verdicts import Contrast, study_verdicts
from ablations.study.plan import Run
from ablations.study.schema import Study
from trainer.config import UserError, counted


class Part(NamedTuple):
    """One of the studies that are compared: its runs, their outcomes by `Run.key`, and notes on what is not counted."""

    study: Study
    runs: Sequence[Run]
    outcomes: Mapping[str, Outcome]
    notes: Sequence[str] = ()


class Claim(NamedTuple):
    """A contrast over all studies, in points of the metric."""

    arm: str
    reference: str
    studies: tuple[Contrast, ...]
    """The contrast in each study, with the verdict of that study's own family of tests."""
    difference: float
    """The mean over the studies of the mean difference of each; NaN where one has none."""
    p: float
    """Adjusted by Holm over the contrasts of all studies together."""
    verdict: str
    """As of a contrast of one study; `not yet` while runs of some study have not ended."""
    level: float
    """The level at which Holm's procedure tested the difference; NaN while runs have not ended."""
    low: float
    high: float
    """Limits of the interval that inverts the test of a difference at `level`."""

    @property
    def observations(self) -> int:
        """The number of paired differences of all studies."""
        return sum(one.found.n for one in self.studies)


def common_contrasts(studies: Sequence[Study], common: bool = False) -> tuple[tuple[str, str], ...]:
    """The contrasts (arm, reference) of studies that can be compared, in the order of the first study.

    Raises UserError where a study has no arms, or looks, or another metric or protocol than the first; and where not
    all have the same contrasts, unless those that all have are asked for (`common`) and there are any.
    """
    names = [study.name for study in studies]
    if len(studies) < 2:
        raise UserError(f"--across: compares two studies or more, but got {', '.join(names)}; name another")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"--across: each study may be named once, but got {twice[0]} more often; remove one")
    first = studies[0]
    for study in studies:
        where = f"--across: {study.name}"
        if not study.pairs:
            raise UserError(f"{where} has no contrasts of arms, which is what is compared; leave it out")
        if study.looks:
            raise UserError(
                f"{where} adds seeds until it is decided (looks), and a test over studies needs numbers of seeds that "
                "do not depend on results; leave it out"
            )
        for what, own, theirs in (
            ("metric", study.metric, first.metric),
            ("protocol", protocol(study), protocol(first)),
        ):
            if own != theirs:
                raise UserError(
                    f"{where} has the {what} {own} and {first.name} {theirs}, and no table mixes them; leave one out"
                )
    shared = tuple(pair for pair in first.pairs if all(pair in study.pairs for study in studies))
    asked = dict.fromkeys(pair for study in studies for pair in study.pairs)
    if len(shared) < len(asked) and not (common and shared):
        raise UserError(f"--across: {_lacking(studies, list(asked), len(shared))}")
    return shared


def _lacking(studies: Sequence[Study], asked: Sequence[tuple[str, str]], shared: int) -> str:
    lists = []
    for study in studies:
        arms = study.compared.overrides
        if absent := dict.fromkeys(arm for pair in asked for arm in pair if arm not in arms):
            lists.append(f"{study.name} lacks {', '.join(absent)}")
        without = [pair for pair in asked if pair not in study.pairs and not set(pair) & absent.keys()]
        if without:
            listed = ", ".join(f"{arm} against {reference}" for arm, reference in without)
            lists.append(f"{study.name} does not compare {listed}")
    remedy = (
        f"--common compares the {counted(shared, 'contrast')} that all have" if shared else "none is in all of them"
    )
    return f"studies must have the same contrasts, but {'; '.join(lists)}; {remedy}"


def across_verdicts(parts: Sequence[Part], pairs: Sequence[tuple[str, str]]) -> list[Claim]:
    """The verdict on each contrast over all studies: one family of tests.

    Two claims are tested, as in one study: that the arms differ (see `stratified`), and, where every study has a
    margin, that they are equivalent in each study within its margin, whose p is the largest of the studies' (Berger
    1982).
    """
    found = [
        {(one.arm, one.reference): one for one in study_verdicts(part.study, part.runs, part.outcomes).contrasts}
        for part in parts
    ]
    rows = [tuple(contrasts[pair] for contrasts in found) for pair in pairs]
    strata = [[np.array(one.found.differences) for one in row] for row in rows]
    ended = [not any(one.pending for one in row) for row in rows]
    margins = [part.study.margin or 0.0 for part in parts]
    differ = [stratified_p(d) if done else 1.0 for d, done in zip(strata, ended, strict=True)]
    same = [
        max(equivalence_p(*of) for of in zip(d, margins, strict=True)) if done else 1.0
        for d, done in zip(strata, ended, strict=True)
        if all(margins)
    ]
    claims = []
    for pair, row, d, done, one in zip(pairs, rows, strata, ended, adjust(differ, same), strict=True):
        mean = mean_of_means(d)
        word: str = "not yet"
        limits = (math.nan, math.nan, math.nan)
        if done:
            word = verdict(np.array([mean]), one.p_differ, one.p_same)
            limits = (one.level_differ, *stratified_interval(d, one.level_differ))
        claims.append(Claim(*pair, row, mean, one.p_differ, word, *limits))
    return claims


def by_study(claim: Claim, names: Sequence[str]) -> str:
    """The verdicts of the single studies in one line: `better on 3 of 4; undecided on nyuv2`."""
    words: dict[str, list[str]] = {}
    for name, one in zip(names, claim.studies, strict=True):
        words.setdefault(one.verdict, []).append(name)
    if len(words) == 1:
        return f"{claim.studies[0].verdict} on all {len(names)}"
    ranked = sorted(words.items(), key=lambda item: -len(item[1]))
    return "; ".join(
        f"{word} on {f'{len(of)} of {len(names)}' if not i and len(of) > 1 else ', '.join(of)}"
        for i, (word, of) in enumerate(ranked)
    )
