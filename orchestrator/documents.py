"""Documents: a study's report as files, for readers, papers, spreadsheets and notebooks."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ablations.latex import to_latex
from ablations.render import to_markdown, to_plain
from ablations.tabular import Table
from orchestrator.ledger import LedgerRun
from orchestrator.page.data import Report
from orchestrator.page.document import page
from trainer.record import write_text

FILES = ("table.txt", "table.md", "table.tex", "table.csv", "table.parquet", "runs.parquet", "report.html")


def write(report: Report, folder: Path) -> list[Path]:
    """Write `FILES` into a folder; their paths. The same ledger and panels give the same bytes, wherever they lie."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "table.txt": to_plain(report.table),
        "table.md": to_markdown(report.table),
        "table.tex": to_latex(report.table),
        "table.csv": to_csv(report.table),
        "report.html": page(report),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    pq.write_table(table_columns(report.table), folder / "table.parquet")
    pq.write_table(run_columns(report), folder / "runs.parquet")
    return [folder / name for name in FILES]


def to_csv(table: Table) -> str:
    """The raw numbers behind the rows, one row each; a column wherever any row has a value."""
    out = io.StringIO()
    writer = csv.DictWriter(out, _names(row.values for row in table.rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.values for row in table.rows)
    return out.getvalue()


def table_columns(table: Table) -> pa.Table:
    """The same in typed columns: numbers as float64 or int64, lists as lists; what is of several types as text."""
    rows = [row.values for row in table.rows]
    return pa.table({name: _column([row.get(name) for row in rows]) for name in _names(rows)})


def run_columns(report: Report) -> pa.Table:
    """A row for each epoch of each run and trial, the long form that plots are made of: who ran, and every metric."""
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
