"""report: print a study's table from the ledger, and write the report's files; or one table of several studies."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.verbs.options import ClusterOption, StoreOption, StudyOrBundle, files_read, opened
from trainer.config import LONGEST_NAME, UserError

OutOption = Annotated[
    Path | None,
    typer.Option("--out", help="folder for the files [STORE/studies/STUDY, ./STUDY-report of what is read-only]"),
]
Others = Annotated[list[str] | None, typer.Argument(metavar="[STUDY...]", help="further studies, with --across")]
AcrossOption = Annotated[
    bool, typer.Option("--across", help="one table of studies with the same arms, with verdicts over all of them")
]
CommonOption = Annotated[bool, typer.Option("--common", help="with --across: only the contrasts that all studies have")]


def report(
    study: StudyOrBundle,
    store: StoreOption = None,
    cluster: ClusterOption = None,
    out: OutOption = None,
    others: Others = None,
    across: AcrossOption = False,
    common: CommonOption = False,
) -> None:
    """Print a study's table from the ledger, and write it as text, Markdown, LaTeX, CSV, Parquet and an HTML page."""
    if across:
        _across([study, *(others or [])], store, cluster, out, common)
        return
    if others or common:
        what = f"several studies ({', '.join([study, *(others or [])])})" if others else "--common"
        raise UserError(f"report: {what} needs --across, by which studies with the same arms are compared; add it")
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


def _across(studies: list[str], store: Path | None, cluster: str | None, out: Path | None, common: bool) -> None:
    """`report --across`: the files go to a folder that is named by all studies, `A+B`, beside those of each."""
    from ablations.table.across import across_table
    from orchestrator.report.across import parts_of, write_across
    from orchestrator.report.bundle import is_bundle
    from orchestrator.report.files import check_folder
    from orchestrator.state.study_state import StudyState
    from orchestrator.store.ledger import Ledger
    from orchestrator.terminal.table import show

    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(opened(study, store, cluster)) for study in studies]
        names = "+".join(loaded.name for loaded, _ in found)
        elsewhere = any(is_bundle(study) for study in studies) or found[0][1].is_read_only
        folder = out or (Path(f"{names}-report") if elsewhere else found[0][1].report_dir(names))
        if len(folder.name) > LONGEST_NAME:
            raise UserError(f"--out: the names of {len(studies)} studies are too long for a folder; name one")
        for study, (_, where) in zip(studies, found, strict=True):
            check_folder("--out", folder, where, files_read(study, cluster))
        states = [StudyState(loaded, Ledger(where.ledger)) for loaded, where in found]
        parts = parts_of(states)
        table = across_table(parts, common)
        show(table)
        if any(state.ledger.exists for state in states):
            typer.echo(f"page: {write_across(parts, table, folder, common)}", err=True)
