"""The store: the one folder where runs, ledger and tracking are kept, and the lease that one driver holds on it."""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from trainer.config import UserError, masked, message_of, printable, shown
from trainer.config.input_files import check_own_file, with_home
from trainer.place import default_cache

ENVIRONMENT = "TRANSKD_STORE"
ASKING_S = 0.5
"""How long to retry a held lock: `driver()` of another process holds it for a moment."""


def resolve(option: str | Path | None = None, spec: str | Path | None = None) -> Path:
    """The store's absolute path: `--store`, else `TRANSKD_STORE`, else the cluster spec's, else `~/transkd-store`.

    Never relative to the working directory, which a Ray job unpacks somewhere else: a relative path is a UserError,
    and so is a URI, because leases and SQLite need a file system.
    """
    for origin, value in (("--store", option), (ENVIRONMENT, os.environ.get(ENVIRONMENT)), ("cluster spec", spec)):
        if value is None or str(value) == "":
            continue
        if (address := as_address(value)) is not None:
            raise UserError(
                f"store ({origin}) must be a folder but got {masked(address)}; mount it as a shared file system"
            )
        path = Path(with_home(str(value)))
        if not path.is_absolute():
            raise UserError(f"store ({origin}) must be an absolute path but got {value}; write {path.absolute()}")
        return path
    return Path.home() / "transkd-store"


def as_address(value: str | Path) -> str | None:
    """`s3://bucket/x` where a path is such an address, of which Path makes `s3:/bucket/x`; None for a folder."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", str(value))
    return f"{found[1]}://{found[2]}" if found else None


def sqlite_uri(path: Path) -> str:
    """The address of an SQLite database. `%` and `?` have a meaning in it, and are written as codes; so are control
    characters.

    The driver is named then: MLflow makes the folder of an address `sqlite:///...` as it is written, codes included.
    """
    coded = re.sub(r"[%?\x00-\x1f]", lambda found: f"%{ord(found[0]):02X}", str(path))
    return f"sqlite:///{path}" if coded == str(path) else f"sqlite+pysqlite:///{coded}"


class Store:
    """The paths below one absolute folder; only `lease` and `identity` write anything."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.jsonl"

    @property
    def runs_dir(self) -> Path:
        return self.root / "runs"

    def run_dir(self, run_id: str) -> Path:
        """Folder of one run: config.yaml, epochs.jsonl, result.json, panel.png, last.pt (the last epoch, which tables
        are of) and best.pt (the epoch with the highest val/miou); while it trains also previous.pt, and notes.txt where
        a checkpoint could not be read."""
        return self.runs_dir / run_id

    def report_dir(self, study: str) -> Path:
        """Folder of a study's report."""
        return self.root / "studies" / study

    @property
    def is_read_only(self) -> bool:
        """Whether the folder exists and cannot be written to."""
        return self.root.exists() and not os.access(self.root, os.W_OK)

    @property
    def cache(self) -> Path:
        """Files that can be recomputed: scenes, packed splits, structure checks. Outside a read-only store."""
        return default_cache() if self.is_read_only else self.root / "cache"

    @property
    def ray_dir(self) -> Path:
        """Storage path of Ray Tune and Ray Train."""
        return self.root / "ray"

    @property
    def artifacts(self) -> Path:
        """Artifacts of the default tracking database."""
        return self.root / "mlartifacts"

    @property
    def database(self) -> Path:
        """MLflow's database, unless MLFLOW_TRACKING_URI names another."""
        return self.root / "mlflow.db"

    @property
    def mlflow_uri(self) -> str:
        """`MLFLOW_TRACKING_URI`, else a SQLite database in the store."""
        scheme, slashes, path = os.environ.get("MLFLOW_TRACKING_URI", "").partition(":///")
        return scheme + slashes + with_home(path) or sqlite_uri(self.database)

    @property
    def identity(self) -> str:
        """12 hex digits that identify the store even after its folder moves; created at first use.

        They distinguish stores that share a tracking server. Raises UserError where the file holds something else.
        """
        path = self.root / "identity"
        try:
            return _read_identity(path)
        except FileNotFoundError:
            self.root.mkdir(parents=True, exist_ok=True)
        draft = self.root / f"identity.{uuid.uuid4().hex}"
        draft.write_text(uuid.uuid4().hex[:12] + "\n", encoding="utf-8")
        try:
            # A link appears whole or not at all, and the first of several processes wins.
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
        return _read_identity(path)

    def driver(self) -> str | None:
        """Who holds the lease; None if nobody does. The lock decides, as the pid in the file may be out of date."""
        path = self.root / "lease"
        check_own_file(path)
        try:
            with path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return _holder(path)
                except OSError:  # no locks here: a driver on another machine may have one, and empties the file later
                    return f"{_holder(path)}, unless it was killed" if file.read(1) else None
        except FileNotFoundError:
            pass
        return None

    @contextmanager
    def lease(self) -> Iterator[None]:
        """Hold the store's lease: one driver at a time. Raises UserError where another process has it, naming that.

        The kernel releases the lock when the process ends, so a killed driver leaves nothing to clean up.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        path = self.root / "lease"
        check_own_file(path)
        with path.open("a+", encoding="utf-8") as file:
            try:
                _lock(file.fileno())
            except BlockingIOError:
                raise UserError(f"store {self.root} is in use by {_holder(path)}; wait for it or end it") from None
            except OSError as error:
                raise UserError(
                    f"store {self.root} must allow file locks but got {message_of(error)}; choose another"
                ) from None
            file.truncate(0)
            now = datetime.now(UTC).isoformat(timespec="seconds")
            json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": now}, file)
            file.flush()
            try:
                yield
            finally:
                # Emptied before the release: a later reader must not see a driver that has ended.
                file.truncate(0)
                file.flush()


def _lock(descriptor: int) -> None:
    """Take the lock, or raise BlockingIOError."""
    end = time.monotonic() + ASKING_S
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise
            time.sleep(ASKING_S / 20)


def _read_identity(path: Path) -> str:
    check_own_file(path)
    text = path.read_bytes().decode(errors="replace").strip()
    if not re.fullmatch("[0-9a-f]{12}", text):
        raise UserError(
            f"{path} must hold 12 hex digits but holds {shown(text)}; write those of the tag transkd.store of its runs "
            "in MLflow, or delete the file, and `transkd sync` sends all runs again"
        )
    return text


def _holder(lease: Path) -> str:
    try:
        by = json.loads(lease.read_text(encoding="utf-8"))
        return printable(f"pid {by['pid']} on {by['host']} since {by['since']}")
    except (ValueError, KeyError, TypeError, RecursionError):
        return "another driver that is just starting"
