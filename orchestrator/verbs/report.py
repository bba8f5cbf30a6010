"""report: print a study's table from the ledger, and write the report's files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.verbs.options import ClusterOption, StoreOption, store_of

if TYPE_CHECKING:
    from ablations.study.schema import Study
    from orchestrator.store.folder import Store

StudyOrBundle = Annotated[
    str, typer.Argument(metavar="STUDY", help="a study's name, a YAML file, or what `transkd bundle` wrote")
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", help="folder for the files [STORE/studies/STUDY, ./STUDY-report of what is read-only]"),
]


def report(
    study: StudyOrBundle, store: StoreOption = None, cluster: ClusterOption = None, out: OutOption = None
) -> None:
    """Print a study's table from the ledger, and write it as text, Markdown, LaTeX, CSV, Parquet and an HTML page."""
    from orchestrator.report.bundle import is_bundle, unpacked
    from orchestrator.state.stored_studies import load_study
    from orchestrator.store.ledger import Ledger

    if is_bundle(study):
        with unpacked(Path(study)) as (bundled, where):
            _report(bundled, where, out or Path(f"{bundled.name}-report"))
    else:
        where = store_of(store, cluster)
        loaded = load_study(study, Ledger(where.ledger))
        beside = Path(f"{loaded.name}-report") if where.is_read_only else where.root / "studies" / loaded.name
        _report(loaded, where, out or beside)


def _report(study: Study, store: Store, folder: Path) -> None:
    from orchestrator.report.files import write
    from orchestrator.report.page.data import report_of
    from orchestrator.state.study_state import StudyState
    from orchestrator.store.ledger import Ledger
    from orchestrator.terminal.table import show

    found = report_of(StudyState(study, Ledger(store.ledger)), store)
    show(found.table)
    if store.ledger.exists():
        files = write(found, folder)
        typer.echo(f"page: {files[-1]}", err=True)
