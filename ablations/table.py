"""Table: the outcomes of a study's runs -> the rows a reader can believe. Pure data; drawing is elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablations.costs import cost_notes, costs_of
from ablations.metric import conditions, described
from ablations.notes import notes_on
from ablations.outcome import MISSING, Outcome, protocol, scores_of, teachers
from ablations.plan import Run
from ablations.reproduction import Reproduction, reproduction_notes, reproductions
from ablations.stats import FAMILY_WISE, compare, mean_std
from ablations.study import Study
from trainer.config import parse


@dataclass(frozen=True)
class Column:
    """A heading, and whether its cells are numbers, which align right."""

    heading: str
    right: bool = False


@dataclass(frozen=True)
class Row:
    """One cell a column, as shown; and the raw numbers behind them, by name, for files."""

    cells: tuple[str, ...]
    values: dict[str, Any]


@dataclass(frozen=True)
class Table:
    """A title, columns, rows, and notes without which the rows must not be read."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


_HEADINGS = {
    "arm": Column("arm"),
    "n": Column("n", right=True),
    "score": Column("mIoU", right=True),
    "reference": Column("vs"),
    "difference": Column("difference [95 %]", right=True),
    "verdict": Column("verdict"),
    "best": Column("best", right=True),
    "published": Column("published", right=True),
    "reproduced": Column("reproduced"),
    "params_m": Column("M par.", right=True),
    "gmacs_paper": Column("GMACs*", right=True),
    "gmacs": Column("GMACs†", right=True),
    "latency_ms": Column("ms‡", right=True),
    "peak_mib": Column("MiB‡", right=True),
}
_DIGITS = {"best": 1, "latency_ms": 1, "peak_mib": 0}
"""After the point, where a column has not two."""


def build_table(
    study: Study,
    runs: Sequence[Run],
    outcomes: Mapping[str, Outcome],
    costs: Mapping[str, Mapping[str, Any]] | None = None,
) -> Table:
    """The table of a study with arms. `outcomes` and `costs` (see `costs_of`) are by `Run.key`."""
    arms = _grouped(runs)
    scores = {arm: scores_of(study, group, outcomes) for arm, group in arms.items()}
    contrasts = _contrasts(study, runs, scores, outcomes)
    cost, held = costs_of(arms, costs or {}), reproductions(study, runs, outcomes)
    rows = []
    for arm, group in arms.items():
        own = contrasts.get(arm, [])
        first = own[0] if own else {"reference": "-" if contrasts else ""}
        about = _about(study, arm, group, scores[arm], outcomes, held) | _parts(study, group, scores[arm], outcomes)
        rows.append(about | cost.get(arm, {}) | first)
        rows += [{"arm": arm, "again": True} | row for row in own[1:]]
    notes = notes_on(study, runs, outcomes) + reproduction_notes(study, held) + cost_notes(study, arms, cost)
    headings = _headings(study)
    shown = [name for name in headings if any(_cell(name, row) for row in rows)]
    return Table(
        title=_title(study, runs, scores),
        columns=tuple(headings[name] for name in shown),
        rows=tuple(Row(tuple(_cell(name, row) for name in shown), row) for row in rows),
        notes=tuple(notes),
    )


def number(value: float | None, digits: int = 1, signed: bool = False) -> str:
    """A number as shown: no minus before zero, and `-` where there is none."""
    if value is None or math.isnan(value):
        return "-"
    return f"{round(value, digits) + 0.0:{'+' if signed else ''}.{digits}f}"


def _grouped(runs: Sequence[Run]) -> dict[str, list[Run]]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.arm, []).append(run)
    return groups


def _headings(study: Study) -> dict[str, Column]:
    """All columns in their order; the conditions of a data set stand behind the verdict, as parts of the whole."""
    found: dict[str, Column] = {}
    for name, column in _HEADINGS.items():
        found[name] = column
        if name == "verdict":
            found |= {part: Column(part, right=True) for part in conditions(parse(study.base))}
    return found


def _about(
    study: Study,
    arm: str,
    group: Sequence[Run],
    scores: Mapping[int, float],
    outcomes: Mapping[str, Outcome],
    held: Mapping[str, Reproduction],
) -> dict[str, Any]:
    mean, std = mean_std(list(scores.values()))
    bests = [outcomes[r.key].best.get(study.metric, math.nan) for r in group if r.seed in scores]
    published = held.get(arm)
    return {
        "arm": arm,
        "role": group[0].role,
        "n": len(scores),
        "seeds": len(group),
        "mean": mean,
        "std": std,
        # Only beside published numbers, which are of the best epoch; ours are judged by the last.
        "best": mean_std(bests)[0] if held else math.nan,
        "published": published.published if published else None,
        "reproduced": published.verdict if published else "",
    }


def _parts(
    study: Study, group: Sequence[Run], scores: Mapping[int, float], outcomes: Mapping[str, Outcome]
) -> dict[str, float]:
    """The mean of each condition over the seeds that have a score."""
    ended = [outcomes[run.key].metrics for run in group if run.seed in scores]
    return {
        part: mean_std([metrics.get(f"val/{part}/miou", math.nan) for metrics in ended])[0]
        for part in conditions(parse(study.base))
    }


def _contrasts(
    study: Study, runs: Sequence[Run], scores: Mapping[str, Mapping[int, float]], outcomes: Mapping[str, Outcome]
) -> dict[str, list[dict[str, Any]]]:
    """The contrasts of each arm that has any."""
    waiting = {run.arm for run in runs if outcomes.get(run.key, MISSING).status in ("missing", "running")}
    pending = {pair for pair in study.pairs if waiting & set(pair)}
    compared = compare(scores, study.pairs, study.margin, pending)
    rows: dict[str, list[dict[str, Any]]] = {}
    for pair, found in zip(study.pairs, compared, strict=True):
        row = {
            "reference": pair[1],
            "pairs": found.n,
            "difference": found.difference,
            "low": found.low,
            "high": found.high,
            "p": found.p,
            "verdict": "not yet" if pair in pending else found.verdict,
        }
        rows.setdefault(pair[0], []).append(row)
    return rows


def _cell(name: str, row: Mapping[str, Any]) -> str:
    if name == "arm":
        return "" if row.get("again") else row["arm"]
    if name == "n":
        if "n" not in row:
            return ""
        return str(row["n"]) if row["n"] == row["seeds"] else f"{row['n']}/{row['seeds']}"
    if name == "score":
        spread = f" ± {number(row['std'])}" if row.get("n", 0) > 1 else ""
        return number(row["mean"]) + spread if "mean" in row else ""
    if name == "difference":
        if not row.get("pairs"):
            return ""
        limits = f" [{number(row['low'])}, {number(row['high'])}]" if row["pairs"] > 1 else ""
        return number(row["difference"], signed=True) + limits
    if name in ("reference", "verdict", "reproduced"):
        return row.get(name, "")
    value = row.get(name)
    digits = _DIGITS.get(name, 2 if name in _HEADINGS else 1)
    return "" if value is None or math.isnan(value) else number(value, digits)


def _title(study: Study, runs: Sequence[Run], scores: Mapping[str, Mapping[int, float]]) -> str:
    seeds = f"{len(study.seeds)} seed{'s' if len(study.seeds) != 1 else ''}"
    parts = [f"{described(study.metric)} ({protocol(study)} protocol)", "last epoch", seeds]
    taught = teachers(runs)
    if len(taught) == 1:
        trained = [score for run in runs if run.role == "teacher" for score in scores[run.arm].values()]
        stated = taught[0].teacher.miou if taught[0].teacher else None
        score = trained[0] if trained else stated
        parts.append(f"one teacher ({number(score)})" if score is not None else "one teacher")
    elif taught:
        parts.append(f"{len(taught)} teachers")
    return f"{study.name}   {', '.join(parts)}, family-wise {FAMILY_WISE * 100:g} %"
