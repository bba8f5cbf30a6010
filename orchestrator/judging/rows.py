"""Rows: a frame in any layout as long rows of arm, seed and score, and what was left out of it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from orchestrator.judging.columns import METRIC, arm_column, metric_column, seed_column, simple
from orchestrator.judging.frame import Frame
from orchestrator.judging.numbers import is_empty, number_of, text_of
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
LISTED = 4
"""The most rows that a remark names."""


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
    pairs: tuple[tuple[str, str], ...] = ()
    """The contrasts that the file itself names: our own table.csv does."""


def long_rows(frame: Frame, arm: str | None, seed: str | None, metric: str | None) -> Rows:
    """The scores of a frame with a row for each run, a column for each arm, or a column for each seed.

    `arm`, `seed` and `metric` are names of columns, as given. Raises UserError where no layout fits, and naming the row
    and the value of a wrong cell.
    """
    frame, left_out = _finished(frame)
    arm_name, seed_name = arm_column(frame, arm), seed_column(frame, seed)
    each_seed = {name: found[1] for name in frame.columns if (found := EACH_SEED.fullmatch(name)) and name != seed_name}
    if len(each_seed) > 1 and metric is None:
        return _across(frame, arm or next(iter(frame.columns)), each_seed, left_out)
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
        label = None if seed_name is None else _filled(frame, seed_name, i, "a seed")
        rows.append(Row(name, label, _score(frame, score_name, i), place))
    return Rows(score_name, rows, (*frame.remarks, *guessed, *left_out, *_without(score_name, without)))


def _across(frame: Frame, arm_name: str, seeds: Mapping[str, str], left_out: tuple[str, ...]) -> Rows:
    """Of a row for each arm and a column for each seed. The further rows of an arm in our own table.csv, which have no
    scores, name its further references."""
    rows, pairs = [], []
    for i, place in enumerate(frame.rows):
        name = _filled(frame, arm_name, i, "the name of an arm")
        for column, seed in seeds.items():
            if not is_empty(frame.columns[column][i]):
                rows.append(Row(name, seed, _score(frame, column, i), place))
        reference = frame.columns["reference"][i] if "reference" in frame.columns else None
        if not is_empty(reference) and reference != "-":
            pairs.append((name, text_of(reference)))
    guessed = [f"Each row is an arm (column {arm_name}), and each of {counted(len(seeds), 'column')} a seed."]
    if pairs:
        guessed.append("Each arm is compared with the one that the column reference names.")
    return Rows("score", rows, (*frame.remarks, *guessed, *left_out), tuple(pairs))


def _wide(frame: Frame, seed_name: str | None, metric: str | None, left_out: tuple[str, ...]) -> Rows:
    """Of a column for each arm and a row for each seed."""
    arms = [name for name in frame.columns if name != seed_name]
    some = [name for name in arms if any(number_of(cell) is not None for cell in frame.columns[name])]
    named = [name for name in arms if simple(name) in METRIC]
    if metric or len(some) < len(arms) or named:
        raise UserError(f"{frame.source}: no column is known to hold the arms; name it by --arm: {_listed(frame)}")
    if len(arms) < 2:
        raise UserError(
            f"{frame.source} has one column of numbers, {arms[0]}; give a column of arms too, or a column for each arm"
        )
    rows = [
        Row(text_of(arm), seed, _score(frame, arm, i), place)
        for i, place in enumerate(frame.rows)
        for seed in [None if seed_name is None else _filled(frame, seed_name, i, "a seed")]
        for arm in arms
        if not is_empty(frame.columns[arm][i])
    ]
    seeds = "" if seed_name is None else f", and each row a seed (column {seed_name})"
    guessed = f"Each of {counted(len(arms), 'column')} is an arm{seeds}."
    return Rows("score", rows, (*frame.remarks, guessed, *left_out))


def _finished(frame: Frame) -> tuple[Frame, tuple[str, ...]]:
    """The frame without rows of runs that did not finish, and without teachers of our own studies; and what is left
    out, in sentences."""
    said: list[str] = []
    for name in list(frame.columns):
        words = [str(cell).strip().lower() for cell in frame.columns[name]]
        unfinished = sorted(set(words) - {*FINISHED, ""})
        if simple(name) in ("state", "status") and set(words) <= {*STATES, ""} and unfinished:
            frame = _without_words(frame, name, unfinished, said)
        if name == "role" or name.endswith(".role"):
            frame = _without_words(frame, name, ["teacher"], said)
    return frame, tuple(said)


def _without_words(frame: Frame, name: str, words: list[str], said: list[str]) -> Frame:
    kept = [i for i, cell in enumerate(frame.columns[name]) if str(cell).strip().lower() not in words]
    if left := len(frame.rows) - len(kept):
        said.append(f"Left out: {counted(left, 'row')} whose {name} is {' or '.join(words)}.")
    if not kept:
        raise UserError(f"{frame.source}: the {name} of every row is {' or '.join(words)}; give finished runs")
    return frame.take(kept)


def _without(metric: str, rows: list[str]) -> list[str]:
    more = f" and {len(rows) - LISTED} more" if len(rows) > LISTED else ""
    return [f"Left out, as they have no {metric}: {', '.join(rows[:LISTED])}{more}."] if rows else []


def _guessed(found: Mapping[str, tuple[str | None, str | None]]) -> list[str]:
    """What each column was taken for, where the user has not said it."""
    named = [f"{what} in column {name}" for what, (name, given) in found.items() if name and not given]
    return [f"Guessed from the names of columns: {', '.join(named)}."] if named else []


def _filled(frame: Frame, column: str, i: int, what: str) -> str:
    cell = frame.columns[column][i]
    if is_empty(cell) or (isinstance(cell, float) and math.isnan(cell)):
        raise UserError(f"{frame.source}: {frame.rows[i]}: {column} must be {what}, but is empty; fill the cell")
    return text_of(cell)


def _score(frame: Frame, column: str, i: int) -> float:
    """The finite number in a cell."""
    cell = frame.columns[column][i]
    wrong: Callable[[str], UserError] = lambda remedy: UserError(  # noqa: E731 - one message with two remedies
        f"{frame.source}: {frame.rows[i]}: {column} must be a finite number, but got {shown(cell)}; {remedy}"
    )
    value = number_of(cell)
    if value is None:
        raise wrong("write it like 76.3, or leave the cell empty where a run has no score")
    if not math.isfinite(value):
        raise wrong("a run that diverged is a result; leave the cell empty only if the run does not count")
    return value


def _listed(frame: Frame) -> str:
    return f"columns: {', '.join(frame.columns)}"
