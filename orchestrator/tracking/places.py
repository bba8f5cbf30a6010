"""Places: where the store's MLflow database says that artifacts lie. MLflow keeps absolute paths, and stores move."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Where MLflow keeps places of artifacts; earlier versions lack some of these tables and columns."""
MODEL = ("MLmodel", "data/student/config.yaml")
CHECKPOINT = "data/student/*.pt"
"""Files of every model that was sent."""
BUSY_S = 10.0
"""Timeout, in seconds, for a database that another process is writing."""


def location(folder: Path) -> str:
    """A folder as MLflow takes it: its path, or its URI where the path holds characters that URIs write as codes."""
    folder = folder.absolute()
    uri = folder.as_uri()
    return str(folder) if uri == f"file://{folder}" else uri


def correct_places(database: Path, artifacts: Path) -> None:
    """Let a store's database name the folder `artifacts` as it is now; places elsewhere are left alone."""
    with closing(sqlite3.connect(database, timeout=BUSY_S)) as connection, connection:
        columns = [pair for pair in COLUMNS if pair[1] in _columns(connection, pair[0])]
        if not columns:
            return
        roots = set(_roots(connection))
        if roots - {location(artifacts)}:
            folders = {_path(root) for root in roots}
            for table, column in columns:
                _move(connection, table, column, folders, artifacts)


def forget_lost(database: Path) -> None:
    """Remove the tags that say that runs and models were sent where files of them are gone from this machine:
    `transkd sync` sends them again."""
    with closing(sqlite3.connect(database, timeout=BUSY_S)) as connection, connection:
        if _columns(connection, "tags"):
            _forget(connection)


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}


def _roots(connection: sqlite3.Connection) -> Iterator[str]:
    """The folders in which the experiments lie: MLflow's default one in `0`, that of a study under its name."""
    for number, name, place in connection.execute("SELECT experiment_id, name, artifact_location FROM experiments"):
        folder = "0" if str(number) == "0" else name.removeprefix("transkd/") if name.startswith("transkd/") else ""
        if folder and place and place.endswith(f"/{folder}") and (place.startswith(("/", "file:"))):
            yield place.removesuffix(f"/{folder}")


def _path(place: str) -> Path:
    return Path(unquote(urlsplit(place).path) if place.startswith("file:") else place)


def _move(connection: sqlite3.Connection, table: str, column: str, folders: set[Path], artifacts: Path) -> None:
    changes = []
    for row, place in connection.execute(f"SELECT rowid, {column} FROM {table}"):
        path = _path(place or "")
        folder = next((folder for folder in folders if path.is_relative_to(folder)), None)
        if folder is not None and (new := location(artifacts / path.relative_to(folder))) != place:
            changes.append((new, row))
    connection.executemany(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", changes)


def _forget(connection: sqlite3.Connection) -> None:
    sent = "SELECT run_uuid, artifact_uri, tags.value FROM runs JOIN tags USING (run_uuid) WHERE key = 'transkd.files'"
    lost = [run for run, place, held in connection.execute(sent) if _is_lost(place, _names(held))]
    if _columns(connection, "logged_models"):
        sent = (
            "SELECT model_id, source_run_id, artifact_location FROM logged_models "
            "JOIN logged_model_tags USING (model_id) WHERE tag_key = 'transkd.sent'"
        )
        models = [
            (model, run)
            for model, run, place in connection.execute(sent)
            if _is_lost(place, MODEL) or _has_no(place, CHECKPOINT)
        ]
        forget = "DELETE FROM logged_model_tags WHERE model_id = ? AND tag_key = 'transkd.sent'"
        connection.executemany(forget, [(model,) for model, _ in models])
        lost += [run for _, run in models]
    forget = "DELETE FROM tags WHERE run_uuid = ? AND key IN ('transkd.files', 'transkd.mirrored')"
    connection.executemany(forget, [(run,) for run in lost])


def _names(held: str) -> list[str]:
    """The names in the tag `transkd.files`: name -> digest of each file that was sent, as JSON."""
    try:
        return list(json.loads(held))
    except (ValueError, TypeError):  # cut off by an earlier version, or edited on the page
        return []


def _is_lost(place: str, names: Iterable[str]) -> bool:
    """Whether a folder of this machine lacks one of these files."""
    return _is_here(place) and not all((_path(place) / name).is_file() for name in names)


def _has_no(place: str, pattern: str) -> bool:
    """Whether a folder of this machine has no file of this pattern."""
    return _is_here(place) and not any(_path(place).glob(pattern))


def _is_here(place: str) -> bool:
    return place.startswith(("/", "file:"))
