"""Options that several commands share, and their values."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainer.config import UserError

if TYPE_CHECKING:
    from ablations.study.schema import Study
    from orchestrator.store.folder import Store

StudyName = Annotated[str, typer.Argument(metavar="STUDY", help="a study's name (`transkd list`), or a YAML file")]
StudyOrBundle = Annotated[
    str, typer.Argument(metavar="STUDY", help="a study's name, a YAML file, or what `transkd bundle` wrote")
]
StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--store",
        help="folder or address (s3://BUCKET/PREFIX) of ledger, runs and tracking [TRANSKD_STORE, ~/transkd-store]",
    ),
]
ClusterOption = Annotated[str | None, typer.Option("--cluster", help="cluster spec: a name (local, gpu) or a file")]
RootsOption = Annotated[
    list[str] | None, typer.Option("--data-root", help="folder of the study's data set, or NAME=FOLDER; repeatable")
]
RetryOption = Annotated[
    bool, typer.Option("--retry-failed", help="also retry runs that failed because a loss was not finite")
]
WorkersOption = Annotated[
    str | None, typer.Option("--workers", metavar="N|N-M", help="processes per run, or a range, instead of the spec's")
]

HoursOption = Annotated[
    float | None,
    typer.Option("--max-gpu-hours", min=0, help="refuse a study that may take more, or that cannot be estimated"),
]


def store_of(option: Path | None, cluster: str | None) -> Store:
    """The store of `--store`, the environment, or the cluster spec."""
    from cluster.spec_file import load as load_spec
    from orchestrator.store.folder import Store, resolve
    from orchestrator.store.sharing import write_as_shared

    found = Store(resolve(option, load_spec(cluster).store))
    if found.shared is not None:
        found.shared.refresh_all()
    else:
        write_as_shared(found.root)
    return found


@contextlib.contextmanager
def opened(study: str, option: Path | None, cluster: str | None) -> Iterator[tuple[Study, Store]]:
    """A study to read and the store of its runs: that of the options, or what a bundle holds."""
    from orchestrator.report.bundle import is_bundle, unpacked
    from orchestrator.state.stored_studies import load_study
    from orchestrator.store.ledger import Ledger

    if is_bundle(study):
        with unpacked(Path(study)) as bundled:
            yield bundled
    else:
        where = store_of(option, cluster)
        yield load_study(study, Ledger(where.ledger)), where


def files_read(study: str, cluster: str | None) -> list[Path]:
    """The files that a command line names: those of the study, or the bundle, and of the cluster spec."""
    return [Path(name) for name in (study, cluster) if name is not None]


def roots_of(study: Study, given: list[str]) -> dict[str, Path]:
    """Data set name -> folder from `--data-root FOLDER` (the study's own data set) or `NAME=FOLDER`."""
    from orchestrator.store.objects.address import as_address

    roots = {}
    for text in given:
        own = study.base.get("data", {}).get("name", "scenes")
        name, equals, folder = text.partition("=")
        if not equals or Path(text).is_dir():  # a folder's name may contain `=`
            name, folder = own, text
        if name != own:
            raise UserError(f"--data-root: the study's data set is {own}, not {name}; write FOLDER or {own}=FOLDER")
        if (address := as_address(folder)) is not None:
            raise UserError(f"--data-root: must be a folder but got {address}; mount it as a file system")
        path = Path(folder).absolute()
        if not path.is_dir():
            raise UserError(f"--data-root: no such folder: {path}")
        roots[name] = path
    return roots
