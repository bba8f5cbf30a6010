"""bundle: write a study to one file, which `transkd report` reads on any machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.verbs.options import ClusterOption, StoreOption, StudyName, files_read, store_of
from trainer.config import UserError
from trainer.config.input_files import check_output, holds


def bundle(
    study: StudyName,
    store: StoreOption = None,
    cluster: ClusterOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="the archive [./STUDY.tar.gz]")] = None,
    student: Annotated[
        str | None, typer.Option("--student", metavar="ARM", help="add the student of this arm's median seed")
    ] = None,
) -> None:
    """Put a study's plan, lock, ledger and report into one archive; `transkd report` reads it without this store."""
    from orchestrator.report.bundle import pack
    from orchestrator.state.stored_studies import BUNDLE_SUFFIX, study_source
    from orchestrator.store.fold import journals
    from orchestrator.store.ledger import Ledger

    where = store_of(store, cluster)
    found = study_source(study, Ledger(where.ledger))
    text, loaded = found.text, found.read()
    path = out or Path(f"{loaded.name}{BUNDLE_SUFFIX}")
    if not path.name.endswith(BUNDLE_SUFFIX):
        raise UserError(f"--out: the archive's name must end in {BUNDLE_SUFFIX} but got {path.name}")
    check_output("--out", path, (*files_read(study, cluster), *journals(where.ledger)))
    if holds(where.runs_dir, path):
        raise UserError(f"--out {path} is in the folder of a run; name another place")
    size = pack(loaded, text, where, path, student)
    print(f"{path}: {size / 1e6:.1f} MB; `transkd report {path}` reads it anywhere")
