"""Copy a store between a folder and an address, or two of one kind. What is there already is not sent again."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from orchestrator.store.objects import run_files
from orchestrator.store.objects.address import connect
from orchestrator.store.objects.objects import Objects
from orchestrator.store.objects.segments import Segments
from orchestrator.store.objects.working_copy import working_folder
from trainer.config import UserError
from trainer.files.atomic import replacing

OTHER_FILES = ("studies", "diffs")
"""Folders whose files are copied as they are: the reports, and how the code differed from its commits."""
JOURNALS = ("ledger.jsonl", "journals/*.jsonl")


def copy_store(source: Path | str, target: Path | str, say: Callable[[str], None] = lambda text: None) -> int:
    """Copy the ledger, the runs and the reports of a store; returns the number of its runs. A folder is a Path, an
    address a str. MLflow's and Optuna's databases are not copied: `transkd sync` makes them.

    The caller has both stores' leases. Raises UserError where the target holds another store.
    """
    if isinstance(source, str):
        local = target if isinstance(target, Path) else working_folder(source)
        _refuse_another(_identity_at(connect(source)), _identity_in(local), target)
        fetch_store(connect(source), local, say)
        source = local
    if isinstance(target, str):
        _refuse_another(_identity_in(source), _identity_at(connect(target)), target)
        send_store(source, connect(target), say)
    elif source != target:
        _refuse_another(_identity_in(source), _identity_in(target), target)
        copy_folder(source, target)
    return len(run_ids(source))


def send_store(root: Path, objects: Objects, say: Callable[[str], None] = lambda text: None) -> None:
    """Send a folder's store to an address: the runs first, so that the ledger names none that is not there."""
    for run_id in run_ids(root):
        if run_files.upload(objects, root, run_id, anew=run_files.read_manifest(objects, run_id) is None):
            say(f"{run_id} is sent")
    for path in _other_files(root):
        objects.write(path.relative_to(root).as_posix(), path.read_bytes())
    Segments(root, objects).send_all()
    if identity := _identity_in(root):
        objects.write("identity", f"{identity}\n".encode())


def fetch_store(objects: Objects, root: Path, say: Callable[[str], None] = lambda text: None) -> None:
    """Fetch the store at an address into a folder."""
    for info in objects.list("runs"):
        run_id, _, name = info.name.removeprefix("runs/").partition("/")
        if name == run_files.MANIFEST and run_files.fetch(objects, root, run_id):
            say(f"{run_id} is here")
    for info in (info for folder in OTHER_FILES for info in objects.list(folder)):
        path = root / info.name
        if ".." in path.parts:
            raise UserError(f"store {objects.address} names the file {info.name!r}, which is none of a store")
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(objects.read(info.name))
    Segments(root, objects).fetch()
    if identity := _identity_at(objects):
        root.mkdir(parents=True, exist_ok=True)
        (root / "identity").write_text(f"{identity}\n", encoding="utf-8")


def copy_folder(source: Path, target: Path) -> None:
    """Copy a store between folders. Raises UserError where a journal of the target is no beginning of the source's."""
    journals = [path for pattern in JOURNALS for path in source.glob(pattern)]
    for path in journals:
        copied = target / path.relative_to(source)
        if copied.exists() and not path.read_bytes().startswith(copied.read_bytes()):
            raise UserError(f"{copied} is not the beginning of {path}; name an empty folder")
    runs = [path for run_id in run_ids(source) for path in (source / "runs" / run_id).glob("[!.]*") if path.is_file()]
    identity = [source / "identity"] if _identity_in(source) else []
    for path in [*runs, *_other_files(source), *journals, *identity]:
        copied = target / path.relative_to(source)
        if copied.is_file() and _digest(copied) == _digest(path):
            continue
        copied.parent.mkdir(parents=True, exist_ok=True)
        with replacing(copied) as temporary:
            shutil.copy2(path, temporary)
            if _digest(temporary) != _digest(path):
                raise UserError(f"{path} changed while it was copied; end what writes it, and copy again")


def run_ids(root: Path) -> list[str]:
    """The runs that a folder holds."""
    return sorted(path.name for path in (root / "runs").glob("*") if path.is_dir())


def _other_files(root: Path) -> Iterator[Path]:
    for folder in OTHER_FILES:
        yield from (path for path in sorted((root / folder).rglob("[!.]*")) if path.is_file())


def _refuse_another(source: str, target: str, where: Path | str) -> None:
    if target and target != source:
        raise UserError(f"{where} holds another store, whose identity is {target}; name an empty one")


def _identity_in(root: Path) -> str:
    path = root / "identity"
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def _identity_at(objects: Objects) -> str:
    try:
        return objects.read("identity").decode(errors="replace").strip()
    except FileNotFoundError:
        return ""


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
