"""The files of a report: text, Markdown, LaTeX, CSV, Parquet and the page."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ablations.table.latex import to_latex
from ablations.table.shape import Table
from ablations.table.text import to_markdown, to_plain
from orchestrator.report.page.data import Report
from orchestrator.report.page.document import page
from orchestrator.store.ledger import LedgerRun
from trainer.files.run_folder import write_text

TRIALS = ("trials.csv", "trials.parquet")
"""Further files of a study with a search."""
FILES = ("table.txt", "table.md", "table.tex", "table.csv", "table.parquet", "runs.parquet", "report.html")


def write(report: Report, folder: Path) -> list[Path]:
    """Write `FILES` into a folder, and `TRIALS` where there are any; returns the paths, the page last. The same ledger
    and panels give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "table.txt": to_plain(report.table),
        "table.md": to_markdown(report.table),
        "table.tex": to_latex(report.table),
        "table.csv": to_csv(values_of(report.table)),
        "report.html": page(report),
    }
    columns = {"table.parquet": to_columns(values_of(report.table)), "runs.parquet": run_columns(report)}
    if trials := trial_rows(report):
        texts["trials.csv"], columns["trials.parquet"] = to_csv(trials), to_columns(trials)
    for name, text in texts.items():
        write_text(folder / name, text)
    for name, typed in columns.items():
        pq.write_table(typed, folder / name)
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


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV, with the columns of all rows."""
    out = io.StringIO()
    writer = csv.DictWriter(out, _names(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


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
    lines = [(arm, seed, role, run, epoch) for arm, seed, role, run in who for epoch in run.epochs]
    columns: dict[str, pa.Array] = {
        "study": pa.array([report.study.name for _ in lines], pa.string()),
        "arm": pa.array([arm for arm, _, _, _, _ in lines], pa.string()),
        "seed": pa.array([seed for _, seed, _, _, _ in lines], pa.int64()),
        "role": pa.array([role for _, _, role, _, _ in lines], pa.string()),
        "run_id": pa.array([run.run_id for _, _, _, run, _ in lines], pa.string()),
        "status": pa.array([run.status for _, _, _, run, _ in lines], pa.string()),
    }
    for name in _names(epoch for *_, epoch in lines):
        kind = pa.int64() if name in ("epoch", "step") else pa.float64()
        columns[name] = pa.array([epoch.get(name) for *_, epoch in lines], kind)
    return pa.table(columns)


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
