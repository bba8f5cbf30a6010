"""The files of judged scores: those of a table, and the page."""

from __future__ import annotations

from pathlib import Path

from orchestrator.judging.judged import Judged
from orchestrator.judging.page import page
from orchestrator.report.table_files import TABLE, write_table
from trainer.config.input_files import check_output
from trainer.files.run_folder import write_text

PAGE = "report.html"


def check_folder(option: str, folder: Path, read: Path | None) -> None:
    """Raise UserError where the files of a table in this folder could not be written, or would replace the one read."""
    for name in (*TABLE, PAGE):
        check_output(option, folder / name, [read])


def write(found: Judged, folder: Path, source: str) -> Path:
    """Write `TABLE` and `PAGE` into a folder; returns the page's path. `source` is where the scores come from."""
    folder.mkdir(parents=True, exist_ok=True)
    write_table(found.table, folder)
    write_text(folder / PAGE, page(found, source))
    return folder / PAGE
