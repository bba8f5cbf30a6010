"""The files of a report: text, Markdown, LaTeX, CSV, Parquet and the page."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ablations.table.latex import to_latex
from ablations.table.shape import Table
from ablations.table.text import to_markdown, to_plain
from orchestrator.report.page.data import Report
from orchestrator.report.page.document import page
from orchestrator.state.outcomes import outcome
from orchestrator.store.epochs import values
from orchestrator.store.folder import Store
from orchestrator.store.ledger import LedgerRun
from trainer.config import UserError, printable
from trainer.config.input_files import check_output, holds
from trainer.files.atomic import replacing
from trainer.files.run_folder import WRITTEN as RUN_FILES
from trainer.files.run_folder import write_text

FORMULA = ("=", "+", "-", "@")
"""What begins a formula in a spreadsheet; control characters, which may as well, are written out."""
TRIALS = ("trials.csv", "trials.parquet")
"""Further files of a study with a search."""
PAGE = "report.html"
FILES = (
    *("table.txt", "table.md", "table.tex", "table.csv", "table.parquet"),
    *("runs.csv", "runs.parquet", PAGE),
)


def check_folder(option: str, folder: Path, store: Store, read: Iterable[Path]) -> None:
    """Raise UserError where a report in this folder would be written over a file that is read, or beside a run's."""
    if holds(store.runs_dir, folder) or any((folder / name).exists() for name in RUN_FILES):
        raise UserError(f"{option} {folder} is the folder of a run, or in one; name another folder")
    for name in (*FILES, *TRIALS):
        check_output(option, folder / name, (*read, store.ledger))


def write(report: Report, folder: Path) -> list[Path]:
    """Write `FILES` into a folder, and `TRIALS` where there are any; returns the paths, the page last. The same ledger
    and panels give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "table.txt": to_plain(report.table),
        "table.md": to_markdown(report.table),
        "table.tex": to_latex(report.table),
        "table.csv": to_csv(values_of(report.table)),
        "runs.csv": to_csv(run_rows(report)),
        PAGE: page(report),
    }
    columns = {"table.parquet": to_columns(values_of(report.table)), "runs.parquet": run_columns(report)}
    if trials := trial_rows(report):
        texts["trials.csv"], columns["trials.parquet"] = to_csv(trials), to_columns(trials)
    for name, text in texts.items():
        write_text(folder / name, text)
    for name, typed in columns.items():
        with replacing(folder / name) as temporary:
            pq.write_table(typed, temporary)
    return [folder / name for name in (*(TRIALS if trials else ()), *FILES)]


def values_of(table: Table) -> list[dict[str, Any]]:
    """The raw numbers behind the rows of a table."""
    return [row.values for row in table.rows]


def trial_rows(report: Report) -> list[dict[str, Any]]:
    """A row for each trial of each search, by number: its values, how it ended, its costs, and every metric of its last
    epoch."""
    return [
        {
            "study": report.study.name,
            "arm": searched.arm,
            "trial": trial.number,
            "run_id": run_id,
            "state": trial.state,
            "epochs": trial.epochs,
            "reason": trial.reason,
            **trial.values,
            **trial.costs,
            **{name: value for name, value in trial.metrics.items() if name != "epoch"},
        }
        for searched in report.searched
        for run_id, trial in searched.history
    ]


def run_rows(report: Report) -> list[dict[str, Any]]:
    """A row for each run, that is one seed of an arm: how it ended, the study's metric at its last and at its best
    epoch, and every metric of its last epoch."""
    metric = report.study.metric
    return [
        {
            "study": report.study.name,
            "arm": member.plan.arm,
            "seed": member.plan.seed,
            "role": member.plan.role,
            "run_id": member.run.run_id,
            "status": member.run.status,
            "epochs": member.run.epochs_done,
            "score": report.scores[member.plan.arm].get(member.plan.seed),
            "best": outcome(member.run).best.get(metric),
            **{name: value for name, value in member.run.last.items() if name != "epoch"},
        }
        for member in report.members
    ]


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV, with the columns of all rows; items of a list are separated by semicolons."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = _names(rows)
    writer.writerow(map(_cell, names))
    writer.writerows([_cell(row.get(name)) for name in names] for row in rows)
    return out.getvalue()


def _cell(value: Any) -> Any:
    """A value for a spreadsheet, which would run a text that begins like a formula: an apostrophe makes it text."""
    if isinstance(value, list):
        value = "; ".join(map(str, value))
    if not isinstance(value, str):
        return value
    text = printable(value)
    begins = text.strip()
    return f"'{text}" if len(begins) > 1 and begins[0] in FORMULA else text


def to_columns(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as typed columns: numbers as float64 or int64, lists as lists, mixed types as text."""
    return pa.table({name: _column([row.get(name) for row in rows]) for name in _names(rows)})


def run_columns(report: Report) -> pa.Table:
    """A row for each epoch of each run and trial (long format): study, arm, seed, role, run, and every metric."""
    who: list[tuple[str, int, str, LedgerRun]]
    who = [(member.plan.arm, member.plan.seed, member.plan.role, member.run) for member in report.members]
    for searched in report.searched:
        study = searched.study
        for trial, run in zip(searched.trials, searched.runs, strict=True):
            who.append((study.trial_name(trial.number), study.seeds[0], "trial", run))
    run_of_epoch = np.repeat(np.arange(len(who)), [len(run.epochs) for *_, run in who])
    own = {
        "study": pa.array([report.study.name] * len(who), pa.string()),
        "arm": pa.array([arm for arm, *_ in who], pa.string()),
        "seed": pa.array([seed for _, seed, *_ in who], pa.int64()),
        "role": pa.array([role for *_, role, _ in who], pa.string()),
        "run_id": pa.array([run.run_id for *_, run in who], pa.string()),
        "status": pa.array([run.status for *_, run in who], pa.string()),
    }
    metrics = _metric_columns([epoch for *_, run in who for epoch in run.epochs])
    return pa.table({name: column.take(pa.array(run_of_epoch)) for name, column in own.items()} | metrics)


def _metric_columns(epochs: Sequence[Mapping[str, float]]) -> dict[str, pa.Array]:
    """Metric -> its value in each epoch; null where the epoch does not have it, NaN where it was not finite."""
    alike: dict[tuple[str, ...], list[int]] = {}
    for place, epoch in enumerate(epochs):
        alike.setdefault(tuple(epoch), []).append(place)
    columns = {name: np.full(len(epochs), np.nan) for names in alike for name in names}
    absent = {name: np.ones(len(epochs), dtype=bool) for name in columns}
    for names, places in alike.items():
        rows = np.array([values(epochs[place]) for place in places])
        for name, column in zip(names, rows.T, strict=True):
            columns[name][places] = column
            absent[name][places] = False
    kinds = {name: pa.int64() if name in ("epoch", "step") else pa.float64() for name in columns}
    return {name: pa.array(columns[name], mask=absent[name]).cast(kinds[name]) for name in columns}


def _names(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _column(values: list[Any]) -> pa.Array:
    numbers = all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values if value is not None
    )
    if numbers and any(isinstance(value, float) for value in values):
        return pa.array(values, pa.float64())
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else str(value) for value in values], pa.string())
