"""The files of a report: text, Markdown, LaTeX, CSV, Parquet and the page."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.report.page.data import Report
from orchestrator.report.page.document import page
from orchestrator.report.table_files import TABLE, to_columns, to_csv, write_table
from orchestrator.state.outcomes import outcome
from orchestrator.store.epochs import values
from orchestrator.store.fold import journals
from orchestrator.store.folder import Store
from orchestrator.store.ledger_run import LedgerRun
from trainer.config import UserError
from trainer.config.input_files import check_output, holds
from trainer.files.atomic import replacing
from trainer.files.run_folder import WRITTEN as RUN_FILES
from trainer.files.run_folder import write_text

TRIALS = ("trials.csv", "trials.parquet")
"""Further files of a study with a search."""
PAGE = "report.html"
RUNS_AT_ONCE = 500
"""Runs whose epochs are in memory as rows while they are written."""
FILES = (*TABLE, "runs.csv", "runs.parquet", PAGE)


def check_folder(option: str, folder: Path, store: Store, read: Iterable[Path]) -> None:
    """Raise UserError where a report in this folder would be written over a file that is read, or beside a run's."""
    if holds(store.runs_dir, folder) or any((folder / name).exists() for name in RUN_FILES):
        raise UserError(f"{option} {folder} is the folder of a run, or in one; name another folder")
    for name in (*FILES, *TRIALS):
        check_output(option, folder / name, (*read, *journals(store.ledger)))


def write(report: Report, folder: Path) -> list[Path]:
    """Write `FILES` into a folder, and `TRIALS` where there are any; returns the paths, the page last. The same ledger
    and panels give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    trials = trial_rows(report)
    write_table(report.table, folder)
    write_text(folder / "runs.csv", to_csv(run_rows(report)))
    write_text(folder / PAGE, page(report))
    with replacing(folder / "runs.parquet") as temporary:
        write_epochs(report, temporary)
    if trials:
        write_text(folder / "trials.csv", to_csv(trials))
        with replacing(folder / "trials.parquet") as temporary:
            pq.write_table(to_columns(trials), temporary)
    return [folder / name for name in (*(TRIALS if trials else ()), *FILES)]


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


def write_epochs(report: Report, path: Path) -> None:
    """Write a row for each epoch of each run and trial as Parquet (long format): study, arm, seed, role, run, and every
    metric, which is null where the epoch does not have it and NaN where it was not finite."""
    who: list[tuple[str, int, str, LedgerRun]]
    who = [(member.plan.arm, member.plan.seed, member.plan.role, member.run) for member in report.members]
    for searched in report.searched:
        study = searched.study
        for trial, run in zip(searched.trials, searched.runs, strict=True):
            who.append((study.trial_name(trial.number), study.seeds[0], "trial", run))
    metrics = dict.fromkeys(
        name for *_, run in who for names in dict.fromkeys(map(tuple, run.epochs)) for name in names
    )
    own = [(name, pa.int64() if name == "seed" else pa.string()) for name in ("study", "arm", "seed", "role", "run_id")]
    measured = [(name, pa.int64() if name in ("epoch", "step") else pa.float64()) for name in metrics]
    schema = pa.schema([*own, ("status", pa.string()), *measured])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, len(who), RUNS_AT_ONCE):
            rows = [
                {
                    "study": report.study.name,
                    "arm": arm,
                    "seed": seed,
                    "role": role,
                    "run_id": run.run_id,
                    "status": run.status,
                    **dict(zip(epoch, values(epoch), strict=True)),
                }
                for arm, seed, role, run in who[start : start + RUNS_AT_ONCE]
                for epoch in run.epochs
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema))
