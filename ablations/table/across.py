"""Table across studies: the arms of several studies side by side, and one verdict for each contrast over all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ablations.statistics.across import Claim, Part, across_verdicts, by_study, common_contrasts
from ablations.statistics.holm import FAMILY_WISE
from ablations.statistics.outcome import protocol, scores_by_arm
from ablations.statistics.paired import can_decide, mean_std, seeds_needed
from ablations.study.metric import described
from ablations.table.notes import teacher_notes, unequal, unfinished
from ablations.table.shape import MOST_NOTES, Column, Row, Table, difference, number
from trainer.config import counted, parse

LEVEL = f"{FAMILY_WISE * 100:g} %"


def across_table(parts: Sequence[Part], common: bool = False) -> Table:
    """The table of several studies with the same arms. Raises UserError where they cannot be compared, see
    `common_contrasts`."""
    studies = [part.study for part in parts]
    pairs = common_contrasts(studies, common)
    claims = across_verdicts(parts, pairs)
    names, first = [study.name for study in studies], studies[0]
    rows = _rows(parts, claims)
    left = _contrasts_left_out(parts, pairs)
    about = f"{described(first.metric)} ({protocol(first)} protocol), last epoch, {len(studies)} studies"
    columns = (
        Column("arm"),
        *(Column(name, right=True) for name in names),
        Column("mIoU", right=True, marked=True),
        Column("n", right=True),
        Column("vs"),
        Column("difference [interval]", right=True),
        Column("verdict"),
        Column("by study"),
    )
    return Table(
        title=f"{' + '.join(names)}   {about}, family-wise {LEVEL}",
        columns=columns,
        rows=rows,
        notes=tuple(_short_notes(parts, claims)),
        more=(_of_each_study(names, claims), _described(parts)),
        explained=(*_explained(parts, claims), *left),
    )


def _rows(parts: Sequence[Part], claims: Sequence[Claim]) -> tuple[Row, ...]:
    """A row for each arm that all studies have, and one more for each further contrast of it."""
    names = [part.study.name for part in parts]
    scores = [scores_by_arm(part.study, part.runs, part.outcomes) for part in parts]
    of_arm: dict[str, list[Claim]] = {}
    for claim in claims:
        of_arm.setdefault(claim.arm, []).append(claim)
    rows = []
    for arm in parts[0].study.compared.overrides:
        if not all(arm in part.study.compared.overrides for part in parts):
            continue
        values: dict[str, Any] = {"arm": arm, "role": "arm"}
        cells = []
        for name, of in zip(names, scores, strict=True):
            mean, std = mean_std(list(of[arm].values()))
            values |= {f"{name} n": len(of[arm]), f"{name} mean": mean, f"{name} std": std}
            cells.append(number(mean) + (f" ± {number(std)}" if len(of[arm]) > 1 else ""))
        planned = sum(len(part.study.seeds) for part in parts)
        values["mean"] = mean_of = sum(values[f"{name} mean"] for name in names) / len(names)
        values |= {"n": sum(len(of[arm]) for of in scores), "seeds": planned}
        n = str(planned) if values["n"] == planned else f"{values['n']}/{planned}"
        own = of_arm.get(arm, [])
        tested = [(_claim_cells(one, names), _claim_values(one, names)) for one in own] or [(("-", "", "", ""), {})]
        rows.append(Row((arm, *cells, number(mean_of), n, *tested[0][0]), values | tested[0][1]))
        blank = ("",) * (len(names) + 3)
        rows += [Row((*blank, *shown), {"arm": arm} | raw) for shown, raw in tested[1:]]
    return tuple(rows)


def _claim_cells(claim: Claim, names: Sequence[str]) -> tuple[str, str, str, str]:
    shown = difference(claim.difference, claim.low, claim.high)
    return claim.reference, shown, claim.verdict, by_study(claim, names)


def _claim_values(claim: Claim, names: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {
        "reference": claim.reference,
        "pairs": claim.observations,
        "difference": claim.difference,
        "p": claim.p,
        "level": claim.level,
        "interval_low": claim.low,
        "interval_high": claim.high,
        "verdict": claim.verdict,
        "by_study": by_study(claim, names),
    }
    for name, one in zip(names, claim.studies, strict=True):
        values |= {f"{name} {what}": value for what, value in one.found.values().items()}
        values[f"{name} verdict"] = one.verdict
    return values


def _of_each_study(names: Sequence[str], claims: Sequence[Claim]) -> Table:
    """The contrasts in each study, as its own report has them."""
    columns = (
        Column("arm"),
        Column("study"),
        Column("vs"),
        Column("difference [interval]", right=True),
        Column("verdict"),
    )
    rows = []
    for claim in claims:
        for name, one in zip(names, claim.studies, strict=True):
            shown = difference(one.found.difference, one.found.low, one.found.high)
            rows.append(Row((claim.arm, name, claim.reference, shown, one.verdict), {}))
    title = f"each study   verdicts as in its own report, family-wise {LEVEL} in each"
    return Table(title, columns, tuple(rows), ())


def _described(parts: Sequence[Part]) -> Table:
    """In what the studies differ: data, networks, seeds and teachers."""
    rows = []
    for study in (part.study for part in parts):
        base = parse(study.base)
        teacher = base.teacher.name if base.teacher else "-"
        size = "x".join(map(str, base.data.size))
        cells = (study.name, base.data.name, size, base.student.name, teacher, str(base.optim.epochs))
        rows.append(Row((*cells, str(len(study.seeds)), str(study.teachers)), {}))
    headings = ("study", "data", "size", "student", "teacher", "epochs", "seeds", "teachers")
    columns = tuple(Column(heading, right=heading in headings[5:]) for heading in headings)
    return Table("studies   as their bases say", columns, tuple(rows), ())


def _short_notes(parts: Sequence[Part], claims: Sequence[Claim]) -> list[str]:
    observations, m = min((claim.observations for claim in claims), default=0), len(claims)
    left = [part.study.name for part in parts if unfinished(part.study, part.runs, part.outcomes)]
    notes = [f"not finished: runs of {', '.join(left)}"] if left else []
    if any(part.notes for part in parts):
        notes.append("not counted: runs of other data, weights or numerics")
    if opposed := [claim for claim in claims if {"better", "worse"} <= {one.verdict for one in claim.studies}]:
        notes.append(f"unequal studies: {counted(len(opposed), 'contrast')} better in one and worse in another")
    if not left and not can_decide(observations, m):
        notes.append(
            f"n too small: {counted(observations, 'pair')} cannot decide {counted(m, 'contrast')} at {LEVEL}, "
            f"{seeds_needed(m)} could"
        )
    notes.append("mIoU and verdict: over all studies, of which each weighs the same")
    return notes[: MOST_NOTES - 1]


def _explained(parts: Sequence[Part], claims: Sequence[Claim]) -> list[str]:
    """Sentences on how the table is read, then what each study's own notes say of its runs."""
    notes = [
        "A difference is the mean over the studies of the mean difference of each, in points of the metric, so that "
        "each study weighs the same, whatever its number of seeds.",
        "Its verdict is an exact two-sided sign-flip test over the paired differences of all studies, corrected by "
        f"Holm's procedure over the {counted(len(claims), 'contrast')} of this table, at {LEVEL} family-wise. The "
        "hypothesis is that the arms differ in no study. The interval holds the values that this test does not reject.",
        "The verdicts by study are those of each study's own report, which is a family of tests of its own. The "
        f"{LEVEL} hold for the verdicts over all studies, and for those of each study alone, not for all together.",
        "A verdict over all studies is of these studies: it does not say what another data set would show.",
    ]
    if all(part.study.margin for part in parts):
        notes.append(
            "Equivalent means that the difference lies within the margin in every study: p is the largest of the "
            "studies'. The interval beside it is that of the mean difference."
        )
    for part in parts:
        study = part.study
        own = [
            *part.notes,
            *unfinished(study, part.runs, part.outcomes),
            *teacher_notes(study, part.runs),
            *unequal(study, part.runs, {}),
        ]
        notes += [f"{study.name}: {text}" for text in own]
    return notes + _changed_otherwise(parts)


def _changed_otherwise(parts: Sequence[Part]) -> list[str]:
    """A sentence for each arm that changes something else in another study than in the first."""
    first = parts[0].study
    notes = []
    for study in (part.study for part in parts[1:]):
        for arm, changes in study.compared.overrides.items():
            theirs = first.compared.overrides.get(arm)
            if theirs is not None and changes != theirs:
                notes.append(
                    f"Unequal: {arm} changes {_listed(changes)} in {study.name} and {_listed(theirs)} in {first.name}."
                )
    return notes


def _listed(changes: Mapping[str, Any]) -> str:
    return ", ".join(f"{path}: {value}" for path, value in changes.items()) or "nothing"


def _contrasts_left_out(parts: Sequence[Part], pairs: Sequence[tuple[str, str]]) -> list[str]:
    """A sentence for each study with contrasts that not all have."""
    return [
        f"{part.study.name}: left out as not all studies have it: "
        f"{', '.join(f'{arm} against {reference}' for arm, reference in out)}."
        for part in parts
        if (out := [pair for pair in part.study.pairs if pair not in pairs])
    ]
