"""Run files: a run's folder in a store at an address. Its manifest, written last, names every file with its sha256.

Small files stand in the manifest; large ones are objects named by their content, so that an upload never changes what
the manifest before it names.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import time
import uuid
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO

from orchestrator.store.objects.objects import Content, DamagedError, Objects
from trainer.config import UserError
from trainer.files.atomic import replacing, whole_json
from trainer.files.run_folder import LAST, PREVIOUS

MANIFEST = "manifest.json"
MARK = ".manifest.json"
"""In the local folder: the manifest that it was uploaded or fetched with, and size and time of its files then."""
RETRIES = "retries.jsonl"
"""A list that the driver, the trial and the workers write, each on its machine: the longest is kept."""
SMALL = 256 * 1024
ATTEMPTS = 3
"""A manifest may be followed by the next while its objects are fetched."""


def upload(objects: Objects, root: Path, run_id: str, *, anew: bool = False) -> bool:
    """Bring a run's folder in the store up to date with the local one; False where nothing has changed. `anew`: the
    store has nothing of it, whatever was sent to another one.

    The caller has the run's claim, or is the process that trains it.
    """
    folder = root / "runs" / run_id
    files, mark = _files(folder), {} if anew else _mark(folder)
    state = {path.name: _state(path) for path in files}
    if state == mark.get("state", {}):
        return False
    before = mark.get("manifest", {"files": {}})
    entries = {}
    for path in files:
        known = before["files"].get(path.name)
        if known is not None and mark["state"].get(path.name) == state[path.name]:
            entries[path.name] = known
        else:
            entries[path.name] = _upload(objects, run_id, path)
    manifest = {"id": uuid.uuid4().hex, "files": entries}
    objects.write(f"runs/{run_id}/{MANIFEST}", json.dumps(manifest, indent=1).encode())
    _write_mark(folder, manifest, state)
    for name in _objects_of(before) - _objects_of(manifest):
        objects.delete(f"runs/{run_id}/{name}")
    return True


def is_ours(objects: Objects, root: Path, run_id: str) -> bool:
    """Whether no other machine has uploaded the run since this one did, or fetched it."""
    there = read_manifest(objects, run_id)
    return there is None or there["id"] == _mark(root / "runs" / run_id).get("manifest", {}).get("id")


def read_manifest(objects: Objects, run_id: str) -> dict[str, Any] | None:
    """The manifest of a run: an id, which each upload changes, and `files`; None where none was uploaded.

    Raises UserError where it is none.
    """
    for _ in range(ATTEMPTS):  # one that is replaced while it is read may be cut
        try:
            found = json.loads(objects.read(f"runs/{run_id}/{MANIFEST}"))
            return {"id": found["id"], "files": dict(found["files"])}
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
    raise _damaged(objects, run_id, f"{MANIFEST} is none")


def _damaged(objects: Objects, run_id: str, why: object) -> UserError:
    return UserError(
        f"run {run_id} in store {objects.address} is damaged ({why}); delete runs/{run_id} there, and `transkd run` "
        "trains it again"
    )


def has_changed(root: Path, run_id: str) -> bool:
    """Whether a run's checkpoint or result is another one than when it was uploaded or fetched last."""
    folder = root / "runs" / run_id
    return {path.name: _state(path) for path in _files(folder)} != _mark(folder).get("state", {})


def fetch(objects: Objects, root: Path, run_id: str, *, whole: bool = True) -> bool:
    """Bring the local folder of a run up to date where another machine has uploaded it since; False where none has.

    Without `whole` only the small files are fetched. Raises UserError where a file differs from its checksum.
    """
    folder = root / "runs" / run_id
    for attempts_left in reversed(range(ATTEMPTS)):
        if (manifest := read_manifest(objects, run_id)) is None or manifest["id"] == _mark(folder).get(
            "manifest", {}
        ).get("id"):
            return False
        try:
            _fetch(objects, folder, run_id, manifest, whole=whole)
            return True
        except (DamagedError, FileNotFoundError) as error:
            if not attempts_left:
                raise _damaged(objects, run_id, error) from None
    raise AssertionError


def fetch_small(objects: Objects, root: Path, run_id: str, names: Collection[str]) -> None:
    """Bring these small files of a run here, where another machine has uploaded it last. Others stay as they are."""
    folder, manifest = root / "runs" / run_id, read_manifest(objects, run_id)
    if manifest is None or manifest["id"] == _mark(folder).get("manifest", {}).get("id"):
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name in manifest["files"].keys() & names:
        if (data := _small(name, manifest["files"][name])) is not None:
            with replacing(folder / name) as temporary:
                temporary.write_bytes(data)


def _small(name: str, entry: dict[str, Any]) -> bytes | None:
    """The bytes of a file that stands in the manifest; None of a large one. Raises DamagedError."""
    if "object" in entry:
        return None
    data = base64.b64decode(entry["base64"]) if "base64" in entry else bytes(entry["text"].encode())
    if (hashlib.sha256(data).hexdigest(), len(data)) != (entry["sha256"], entry["size"]):
        raise DamagedError(f"{name} differs from its checksum")
    return data


def _fetch(objects: Objects, folder: Path, run_id: str, manifest: dict[str, Any], *, whole: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    own = folder / RETRIES
    is_longer = own.is_file() and own.stat().st_size > manifest["files"].get(RETRIES, {"size": 0})["size"]
    kept = {RETRIES} if is_longer else set()
    if whole:  # what the other machine has not is of an earlier attempt, here
        (folder / MARK).unlink(missing_ok=True)
        for path in [*_files(folder), folder / PREVIOUS]:
            if path.name not in manifest["files"].keys() | kept:
                path.unlink(missing_ok=True)
    for name, entry in manifest["files"].items():
        if Path(name).name != name or name.startswith("."):
            raise UserError(f"run {run_id} in store {objects.address} names the file {name!r}, which is none of a run")
        if name in kept:
            continue
        if (data := _small(name, entry)) is not None:
            with replacing(folder / name) as temporary:
                temporary.write_bytes(data)
        elif whole:
            content = Content(entry["sha256"], entry["size"])
            objects.download(f"runs/{run_id}/{entry['object']}", folder / name, content)
    if whole:
        _write_mark(folder, manifest, {path.name: _state(path) for path in _files(folder) if path.name not in kept})


def _upload(objects: Objects, run_id: str, path: Path) -> dict[str, Any]:
    """A file's entry in the manifest; a large one is uploaded first."""
    with path.open("rb") as file:  # a checkpoint may be replaced meanwhile: this stays the same content
        if path.suffix == ".pt":
            return _upload_open(objects, run_id, path.name, file)
        data = file.read()  # a list of epochs may grow meanwhile
    if len(data) > SMALL:
        return _upload_open(objects, run_id, path.name, io.BytesIO(data))
    entry = _entry(io.BytesIO(data))
    try:
        return {**entry, "text": data.decode()}
    except UnicodeDecodeError:
        return {**entry, "base64": base64.b64encode(data).decode()}


def _upload_open(objects: Objects, run_id: str, name: str, file: BinaryIO) -> dict[str, Any]:
    entry = _entry(file)
    entry["object"] = f"{name}.{entry['sha256'][:16]}"
    objects.upload(file, f"runs/{run_id}/{entry['object']}")
    return entry


def _entry(file: Any) -> dict[str, Any]:
    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {"sha256": sha256, "size": file.seek(0, io.SEEK_END)}


def _files(folder: Path) -> list[Path]:
    """The files of a run, without the backup of its checkpoint. While last.pt is replaced it is waited for."""
    for _ in range(20):
        files = [path for path in sorted(folder.glob("*")) if path.is_file() and not path.name.startswith(".")]
        names = {path.name for path in files}
        if LAST in names or PREVIOUS not in names:
            break
        time.sleep(0.05)
    return [path for path in files if path.name != PREVIOUS]


def _state(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _mark(folder: Path) -> dict[str, Any]:
    return whole_json(folder / MARK) or {}


def _write_mark(folder: Path, manifest: dict[str, Any], state: dict[str, list[int]]) -> None:
    with replacing(folder / MARK) as temporary:
        temporary.write_text(json.dumps({"manifest": manifest, "state": state}), encoding="utf-8")


def _objects_of(manifest: dict[str, Any]) -> set[str]:
    return {entry["object"] for entry in manifest["files"].values() if "object" in entry}
