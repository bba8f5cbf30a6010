"""report: print a study's table from the ledger, and write the report's files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.verbs.options import ClusterOption, StoreOption, StudyOrBundle, files_read, opened

OutOption = Annotated[
    Path | None,
    typer.Option("--out", help="folder for the files [STORE/studies/STUDY, ./STUDY-report of what is read-only]"),
]


def report(
    study: StudyOrBundle, store: StoreOption = None, cluster: ClusterOption = None, out: OutOption = None
) -> None:
    """Print a study's table from the ledger, and write it as text, Markdown, LaTeX, CSV, Parquet and an HTML page."""
    from orchestrator.report.bundle import is_bundle
    from orchestrator.report.files import check_folder, write
    from orchestrator.report.page.data import report_of
    from orchestrator.state.study_state import StudyState
    from orchestrator.store.ledger import Ledger
    from orchestrator.terminal.table import show

    with opened(study, store, cluster) as (loaded, where):
        elsewhere = is_bundle(study) or where.is_read_only
        folder = out or (Path(f"{loaded.name}-report") if elsewhere else where.report_dir(loaded.name))
        check_folder("--out", folder, where, files_read(study, cluster))
        state = StudyState(loaded, Ledger(where.ledger))
        found = report_of(state, where)
        show(found.table)
        if state.ledger.exists:
            files = write(found, folder)
            typer.echo(f"page: {files[-1]}", err=True)
