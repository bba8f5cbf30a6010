"""Table of scores that anybody measured: rows, verdicts and notes as of a study, without its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ablations.statistics.holm import FAMILY_WISE
from ablations.statistics.measured import Measured, decimals, measured_verdicts
from ablations.statistics.paired import mean_std
from ablations.statistics.unpaired import DRAWN, MAX_ENUMERATED, P_ERROR
from ablations.statistics.verdicts import Contrast
from ablations.table.notes import PAIRED_INTERVALS, SIGN_FLIP, lacking_notes, pair_notes, sentence, verdict_notes
from ablations.table.rows import HEADINGS, arm_rows, contrast_rows, laid_out
from ablations.table.shape import MOST_NOTES, Column, Table
from ablations.table.short_notes import decision_note
from trainer.config import counted

DRAW = f"{DRAWN:,} random permutations (seed 0; standard error {P_ERROR:.1g} of a p of {FAMILY_WISE:g})"


def judged_table(
    name: str,
    measured: Measured,
    remarks: Sequence[str] = (),
    reported: Mapping[tuple[str, str], str] = MappingProxyType({}),
) -> Table:
    """The table of measured scores; `remarks` say how they were read, in sentences. `reported` are the verdicts that
    the scores come with: those that differ are named."""
    found, tests = measured_verdicts(measured), len(measured.pairs)
    other = [one for one in found if reported.get((one.arm, one.reference), "") not in ("", one.verdict)]
    rows = arm_rows(
        {arm: _about(measured, arm) for arm in measured.scores}, contrast_rows(found, measured.margin, tests)
    )
    headings = HEADINGS | {"score": Column(measured.metric, right=True, marked=True)}
    columns, shown = laid_out(rows, headings, decimals(measured))
    return Table(
        title=_title(name, measured),
        columns=columns,
        rows=shown,
        notes=tuple(_short_notes(measured, len(other))),
        next_step=f"next: {_next_step(measured, found)}",
        explained=(*remarks, *_reported(other, reported), *_explained(measured, found)),
    )


def _about(measured: Measured, arm: str) -> dict[str, Any]:
    scores = measured.scores[arm]
    mean, std = mean_std(list(scores.values()))
    seeds, what = (measured.seeds, "seed") if measured.paired else (list(scores), "value")
    return {
        "arm": arm,
        "role": "arm",
        "n": len(scores),
        "seeds": len(seeds),
        "mean": mean,
        "std": std,
        **{f"{what} {seed}": scores.get(seed) for seed in seeds},
    }


def _title(name: str, measured: Measured) -> str:
    what = f"{counted(len(measured.seeds), 'seed')}, paired" if measured.paired else "not paired"
    less = ", less is better" if measured.minimise else ""
    return f"{name}   {measured.metric}{less}, {what}, family-wise {FAMILY_WISE * 100:g} %"


def _reported(other: Sequence[Contrast], reported: Mapping[tuple[str, str], str]) -> list[str]:
    """A sentence on the contrasts that a report of the same scores decides otherwise."""
    listed = [
        f"{one.arm} against {one.reference} ({reported[one.arm, one.reference]}, here {one.verdict})" for one in other
    ]
    why = (
        "A margin, looks, several teachers or factors of a study do not show in its scores: the report's verdicts hold."
    )
    return [f"The report that wrote this table has other verdicts: {', '.join(listed)}. {why}"] if listed else []


def _short_notes(measured: Measured, other: int) -> list[str]:
    contrasts = counted(len(measured.pairs), "contrast")
    notes = [decision_note(_counts(measured), contrasts, able=measured.can_decide)]
    if other:
        notes.append(f"unequal: the report of these scores has another verdict on {counted(other, 'contrast')}")
    if not measured.paired:
        notes.append(f"not paired: {'exact permutation test' if measured.exact else DRAW}")
    if measured.margin is not None:
        notes.append(f"equivalent: differs by less than {measured.margin:g}")
    return notes[: MOST_NOTES - 1]  # one more says what bold means


def _counts(measured: Measured) -> str:
    """`3 seeds`, `3 to 5 values`: how many each contrast has."""
    counts = sorted({n for pair in measured.pairs for n in measured.sizes(pair)})
    what = "seed" if measured.paired else "value"
    return counted(counts[0], what) if len(counts) == 1 else f"{counts[0]} to {counted(counts[-1], what)}"


def _next_step(measured: Measured, found: Sequence[Contrast]) -> str:
    if not measured.can_decide:
        what = "seeds" if measured.paired else "values of each arm"
        return f"measure again with at least {measured.needed} {what}, which can decide"
    if any(one.verdict == "undecided" for one in found):
        return "measure again with more seeds; none may be added to these"
    return "nothing is left to do"


def _explained(measured: Measured, found: Sequence[Contrast]) -> list[str]:
    tests = len(measured.pairs)
    how = SIGN_FLIP if measured.paired else _permutation(measured)
    notes = verdict_notes(how, counted(tests, "test"), measured.margin, unit="")
    counts = f"{_counts(measured)}, {counted(tests, 'contrast')}: the smallest adjusted p is {measured.smallest_p:.2g}"
    able = "so a difference can be decided" if measured.can_decide else "so no difference can be decided"
    notes += [
        PAIRED_INTERVALS if measured.paired else "Welch's t interval of 95 % (low, high) is in table.csv.",
        sentence(f"{counts}, {able} at {FAMILY_WISE * 100:g} %"),
    ]
    if not measured.paired:
        return notes
    return [
        *notes,
        "Runs of one seed are taken as pairs. That gains where they share initialisation and order of samples; the "
        "test holds also where they share nothing but the number.",
        *pair_notes(found, measured.scores),
        *lacking_notes(found, measured.margin, tests, unit=""),
    ]


def _permutation(measured: Measured) -> str:
    """How unpaired values are tested."""
    how = "two-sided permutation test of the means of values that are not paired"
    if measured.exact:
        return f"an exact {how}"
    return f"a {how}, exact up to {MAX_ENUMERATED:,} permutations, above by {DRAW}"
