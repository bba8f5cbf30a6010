"""Rounds: the cohorts of a phase of a study, with the time that each takes, on so many slots at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cluster.spec import ClusterSpec
from orchestrator.prepare.cohort_costs import CohortCosts, Planned
from orchestrator.prepare.cohorts import ends, most_runs
from orchestrator.prepare.work_left import PendingRun, Phase, Range


class Round(NamedTuple):
    """Cohorts that start in this order, `at_once` in parallel; what follows starts when all have ended."""

    sizes: list[int]
    lengths: list[Range]
    """Seconds of each."""
    at_once: int


def rounds_of(
    phase: Phase, seconds: Sequence[Range], spec: ClusterSpec, slots: int | None, costs: CohortCosts
) -> list[Round]:
    """The cohorts of a phase: of all its runs, or batch by batch in a deterministic search."""
    at_once = min(slots or 1, phase.at_once or slots or 1)
    most = 1 if phase.apart or not slots else most_runs(spec)
    size = (phase.at_once or len(phase.runs)) if most > 1 else len(phase.runs)
    found = []
    for first in range(0, len(phase.runs), size):
        runs = [
            Planned(str(n), run.config, run.teacher, run.done)
            for n, run in enumerate(phase.runs[first : first + size], start=first)
        ]
        cohorts = [[int(name) for name in names] for names in costs.cohorts(runs, at_once, most)]
        lengths = [_length([(phase.runs[n], seconds[n]) for n in cohort], costs) for cohort in cohorts]
        found.append(Round([len(cohort) for cohort in cohorts], lengths, at_once))
    return found


def _length(cohort: Sequence[tuple[PendingRun, Range]], costs: CohortCosts) -> Range:
    """Seconds of a cohort: each run's own, and the longest of the teacher's parts."""
    if len(cohort) == 1:
        return cohort[0][1]
    shares = [costs.teacher_share(run.config) for run, _ in cohort]
    lengths = []
    for which in range(len(Range._fields)):
        parts = [
            (seconds[which] * (1 - share), seconds[which] * share)
            for (_, seconds), share in zip(cohort, shares, strict=True)
        ]
        lengths.append(sum(own for own, _ in parts) + max(shared for _, shared in parts))
    return Range(*lengths)


def on_the_clock(rounds: Sequence[Round]) -> Range:
    """Wall-clock seconds: within a round a cohort starts as soon as a slot is free."""
    totals = [0.0] * len(Range._fields)
    for each in rounds:
        for which in range(len(totals)):
            totals[which] += max(ends((length[which] for length in each.lengths), each.at_once))
    return Range(*totals)
