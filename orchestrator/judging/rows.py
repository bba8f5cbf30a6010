"""Rows: a frame in any layout as long rows of arm, seed and score, and what was left out of it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.judging.columns import (
    METRIC,
    NO_ARMS,
    NO_SEEDS,
    SUMMARIES,
    arm_column,
    label_column,
    metric_column,
    seed_column,
    simple,
)
from orchestrator.judging.frame import Frame
from orchestrator.judging.numbers import is_empty, number_of, seed_of, text_of
from trainer.config import UserError, counted, shown

FINISHED = ("finished", "complete", "completed", "done", "success", "succeeded")
STATES = (
    *FINISHED,
    *("failed", "fail", "crashed", "killed", "pruned", "running", "stopped", "waiting", "pending", "missing"),
    *("scheduled", "preempted", "retried", "refused"),
)
"""The words of W&B, Optuna, MLflow, Ray and our own tables for how a run stands."""
EACH_SEED = re.compile(r"(?:seed|fold|run|repeat)[ _-]?(-?\d+)", re.IGNORECASE)
"""A column for one seed, as in our own table.csv: `seed 3`."""
LARGEST = 1e100
"""The largest score: squares of larger ones are infinite."""
LISTED = 4
"""The most rows or arms that a remark names."""


@dataclass(frozen=True)
class Row:
    """One score: of an arm, of a seed if there are seeds, and where it stands."""

    arm: str
    seed: str | None
    score: float
    place: str


@dataclass(frozen=True)
class Rows:
    """The scores of a frame, the name of the metric, and in sentences what was guessed or left out."""

    metric: str
    rows: list[Row]
    remarks: tuple[str, ...]
    pairs: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """The contrasts that the file itself names, as our own table.csv does, and their verdicts there, or nothing."""


def long_rows(frame: Frame, arm: str | None, seed: str | None, metric: str | None) -> Rows:
    """The scores of a frame with a row for each run, a column for each arm, or a column for each seed.

    `arm`, `seed` and `metric` are names of columns, as given. Raises UserError where no layout fits, and naming the row
    and the value of a wrong cell.
    """
    frame, teachers = _without_teachers(frame)
    whole, (frame, unfinished) = frame, _finished(frame)
    left_out = (*teachers, *unfinished)
    arm_name, seed_name = arm_column(frame, arm, (seed, metric)), seed_column(frame, seed, (arm, metric))
    each_seed = _seeds_of_columns(frame, arm) if seed_name is None and metric is None else {}
    if each_seed:
        return _across(frame, arm, each_seed, left_out)
    score_name = metric_column(frame, metric, (arm_name, seed_name))
    if arm_name is None:
        return _wide(frame, seed_name, metric, left_out)
    if score_name is None:
        raise UserError(f"{frame.source}: no column is known to be the metric; name it by --metric: {_listed(frame)}")
    guessed = _guessed({"arms": (arm_name, arm), "seeds": (seed_name, seed), "scores": (score_name, metric)})
    rows, without = [], []
    for i, place in enumerate(frame.rows):
        if is_empty(frame.columns[score_name][i]):
            named = [text_of(frame.columns[of][i]) for of in (arm_name, seed_name) if of is not None]
            without.append(f"{place} ({', '.join(named)})")
            continue
        name = _filled(frame, arm_name, i, "the name of an arm")
        label = None if seed_name is None else _seed(frame, seed_name, i)
        rows.append(Row(name, label, _score(frame, score_name, i), place))
    left_out = (*left_out, *_without(score_name, without), *_without_scores(whole.columns[arm_name], rows))
    return Rows(score_name, rows, (*frame.remarks, *guessed, *left_out))


def _seeds_of_columns(frame: Frame, arm: str | None) -> dict[str, str]:
    """Column -> seed, where several columns are each of a seed: `seed 3`, or `3` beside a column of arms, as pandas
    pivots."""
    found = {name: match[1] for name in frame.columns if (match := EACH_SEED.fullmatch(name))}
    if len(found) < 2:
        numbers = {name: seed_of(name) for name in frame.columns if seed_of(name).isdecimal()}
        found = numbers if label_column(frame, arm, numbers) else {}
    return found if len(found) > 1 else {}


def _across(frame: Frame, arm: str | None, seeds: Mapping[str, str], left_out: tuple[str, ...]) -> Rows:
    """Of a row for each arm and a column for each seed. The further rows of an arm in our own table.csv, which have no
    scores, name its further references."""
    rows, pairs = [], {}
    references, verdicts = (frame.columns.get(name, [None] * len(frame.rows)) for name in ("reference", "verdict"))
    arm_name = label_column(frame, arm, seeds) or next((name for name in frame.columns if name not in seeds), None)
    if arm_name is None:
        raise _no_arms(frame)
    for i, place in enumerate(frame.rows):
        name = _filled(frame, arm_name, i, "the name of an arm")
        for column, seed in seeds.items():
            if not is_empty(frame.columns[column][i]):
                rows.append(Row(name, seed, _score(frame, column, i), place))
        if not is_empty(references[i]) and references[i] != "-":
            pairs[name, text_of(references[i])] = text_of(verdicts[i])
    left_out = (*left_out, *_without_scores(frame.columns[arm_name], rows))
    guessed = [f"Each row is an arm (column {arm_name}), and each of {counted(len(seeds), 'column')} a seed."]
    if pairs:
        guessed.append("Each arm is compared with the one that the column reference names.")
    return Rows("score", rows, (*frame.remarks, *guessed, *left_out), pairs)


def _wide(frame: Frame, seed_name: str | None, metric: str | None, left_out: tuple[str, ...]) -> Rows:
    """Of a column for each arm and a row for each seed."""
    all_arms = [name for name in frame.columns if name != seed_name]
    arms = [name for name in all_arms if not all(map(is_empty, frame.columns[name]))]
    words = [name for name in arms if all(number_of(cell) is None for cell in frame.columns[name])]
    if metric or words or any(simple(name) in METRIC for name in arms):
        raise _no_arms(frame)
    if other := next((name for name in arms if simple(name) in NO_ARMS), None):
        raise UserError(
            f"{frame.source}: each column of numbers is taken for an arm, which {other} is not by its name; remove or "
            "rename it, or name the column of arms by --arm"
        )
    if len(arms) == 1:
        raise UserError(
            f"{frame.source} has one column of numbers, {arms[0]}; give a column of arms too, or a column for each arm"
        )
    rows = [
        Row(text_of(arm), seed, _score(frame, arm, i), place)
        for i, place in enumerate(frame.rows)
        for seed in [None if seed_name is None else _seed(frame, seed_name, i)]
        for arm in arms
        if not is_empty(frame.columns[arm][i])
    ]
    seeds = "" if seed_name is None else f", and each row a seed (column {seed_name})"
    guessed = f"Each of {counted(len(arms), 'column')} is an arm{seeds}."
    return Rows("score", rows, (*frame.remarks, guessed, *left_out, *_without_scores(all_arms, rows)))


def _without_teachers(frame: Frame) -> tuple[Frame, list[str]]:
    """The frame without rows of teachers of our own studies; and what is left out, in sentences."""
    said: list[str] = []
    for name in list(frame.columns):
        if name == "role" or name.endswith(".role"):
            frame = _without_words(frame, name, ["teacher"], said)
    return frame, said


def _finished(frame: Frame) -> tuple[Frame, list[str]]:
    """The frame without rows of runs that did not finish; and what is left out, in sentences."""
    said: list[str] = []
    for name in list(frame.columns):
        words = [str(cell).strip().lower() for cell in frame.columns[name]]
        unfinished = sorted(set(words) - {*FINISHED, ""})
        if simple(name) in ("state", "status") and set(words) & set(STATES) and unfinished:
            frame = _without_words(frame, name, unfinished, said)
    return frame, said


def _without_words(frame: Frame, name: str, words: list[str], said: list[str]) -> Frame:
    kept = [i for i, cell in enumerate(frame.columns[name]) if str(cell).strip().lower() not in words]
    if left := len(frame.rows) - len(kept):
        said.append(f"Left out: {counted(left, 'row')} whose {name} is {' or '.join(words)}.")
    if not kept:
        raise UserError(f"{frame.source}: the {name} of every row is {' or '.join(words)}; give finished runs")
    return frame.take(kept)


def _without(metric: str, rows: list[str]) -> list[str]:
    return [f"Left out, as they have no {metric}: {_some(rows)}."] if rows else []


def _without_scores(arms: Iterable[Any], rows: list[Row]) -> list[str]:
    """A sentence on the arms none of whose rows has a score."""
    scored = {row.arm for row in rows}
    out = [name for name in dict.fromkeys(map(text_of, arms)) if name and name not in scored]
    return [f"Not compared, as they have no score: {_some(out)}."] if out else []


def _some(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"{', '.join(names[:LISTED])}{more}"


def _guessed(found: Mapping[str, tuple[str | None, str | None]]) -> list[str]:
    """What each column was taken for, where the user has not said it."""
    named = [f"{what} in column {name}" for what, (name, given) in found.items() if name and not given]
    return [f"Guessed from the names of columns: {', '.join(named)}."] if named else []


def _filled(frame: Frame, column: str, i: int, what: str) -> str:
    cell = frame.columns[column][i]
    if is_empty(cell) or (isinstance(cell, float) and math.isnan(cell)):
        raise UserError(f"{frame.source}: {frame.rows[i]}: {column} must be {what}, but is empty; fill the cell")
    return text_of(cell)


def _seed(frame: Frame, column: str, i: int) -> str:
    """The seed in a cell."""
    seed = seed_of(_filled(frame, column, i, "a seed"))
    if seed.lower() in SUMMARIES:
        raise UserError(
            f"{frame.source}: {frame.rows[i]}: {column} must be a seed, but {seed} is a summary of others; "
            "remove the row"
        )
    if seed.lower() in NO_SEEDS:
        raise UserError(
            f"{frame.source}: {frame.rows[i]}: {column} must be a seed, but got {shown(seed)}; write the seed"
        )
    return seed


def _score(frame: Frame, column: str, i: int) -> float:
    """The finite number in a cell."""
    cell = frame.columns[column][i]
    value = number_of(cell)
    if value is not None and abs(value) <= LARGEST:
        return value
    if value is None:
        remedy = "write it like 76.3, or leave the cell empty where a run has no score"
    elif math.isfinite(value):
        remedy = f"scores up to {LARGEST:g} are compared; correct it"
    else:
        remedy = "a run that diverged is a result; leave the cell empty only if the run does not count"
    raise UserError(
        f"{frame.source}: {frame.rows[i]}: {column} must be a finite number, but got {shown(cell)}; {remedy}"
    )


def _no_arms(frame: Frame) -> UserError:
    """No column is one of arms: none has the name of one, or its arms have one row each."""
    why = "no column is known to hold the arms"
    if once := label_column(frame, None, ()):
        why = f"each {once} stands in one row, and a comparison needs several scores of an arm"
    return UserError(f"{frame.source}: {why}; name the column of arms by --arm: {_listed(frame)}")


def _listed(frame: Frame) -> str:
    return f"columns: {', '.join(frame.columns)}"
