"""The store: the one folder where runs, journals and tracking are kept."""

from __future__ import annotations

import os
import re
import uuid
from pathlib import Path

from orchestrator.store.disks import folder_of
from orchestrator.store.leases import Leases
from orchestrator.store.objects.address import as_address, check_address
from orchestrator.store.objects.working_copy import WorkingCopy, opened, working_copy
from trainer.config import UserError, located, shown
from trainer.config.input_files import check_own_file, with_home
from trainer.place import default_cache

ENVIRONMENT = "TRANSKD_STORE"


def resolve(option: str | Path | None = None, spec: str | Path | None = None) -> Path:
    """The store's folder: of `--store`, else `TRANSKD_STORE`, else the cluster spec, else `~/transkd-store`.

    Of an address it is the working copy, which is made. Never relative to the working directory, which a Ray job
    unpacks somewhere else: a relative path is a UserError.
    """
    found = named(option, spec)
    return found if isinstance(found, Path) else opened(found)


def named(option: str | Path | None = None, spec: str | Path | None = None) -> Path | str:
    """The folder, or the address, that is named as `resolve` says. Raises UserError where it can be no store."""
    for origin, value in (("--store", option), (ENVIRONMENT, os.environ.get(ENVIRONMENT)), ("cluster spec", spec)):
        if value is not None and str(value):
            return checked(origin, value)
    return Path.home() / "transkd-store"


def checked(origin: str, value: str | Path) -> Path | str:
    """The folder, or the address, that `origin` names. Raises UserError where it can be no store."""
    if (address := as_address(value)) is not None:
        with located(f"store ({origin})"):
            return check_address(address)
    path = Path(with_home(str(value)))
    if not path.is_absolute():
        raise UserError(f"store ({origin}) must be an absolute path but got {value}; write {path.absolute()}")
    return path


def sqlite_uri(path: Path) -> str:
    """The address of an SQLite database. `%` and `?` have a meaning in it, and are written as codes; so are control
    characters.

    The driver is named then: MLflow makes the folder of an address `sqlite:///...` as it is written, codes included.
    """
    coded = re.sub(r"[%?\x00-\x1f]", lambda found: f"%{ord(found[0]):02X}", str(path))
    return f"sqlite:///{path}" if coded == str(path) else f"sqlite+pysqlite:///{coded}"


class Store:
    """The paths below one absolute folder, which may be the working copy of an address; only `identity` writes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def shared(self) -> WorkingCopy | None:
        """The working copy, where the store lies at an address."""
        return working_copy(self.root)

    @property
    def name(self) -> str:
        """The store's folder or address, for people."""
        return self.shared.objects.address if self.shared else str(self.root)

    def fetch_run(self, run_id: str, *, whole: bool = True) -> None:
        """Bring a run's folder here up to date, where the store lies at an address; without `whole` its small files."""
        if self.shared is not None:
            self.shared.fetch_run(run_id, whole=whole)

    @property
    def ledger(self) -> Path:
        """The first journal of the ledger: versions that had one for all studies wrote it. See `Ledger`."""
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
    def databases(self) -> Path:
        """Folder of MLflow's and Optuna's databases, which are made from the ledger: the store's, or where that lies on
        a network file system, one on this machine's own disk."""
        return folder_of(self.root)

    @property
    def database(self) -> Path:
        """MLflow's database, unless MLFLOW_TRACKING_URI names another."""
        return self.databases / "mlflow.db"

    @property
    def mlflow_uri(self) -> str:
        """`MLFLOW_TRACKING_URI`, else a SQLite database of the store."""
        scheme, slashes, path = os.environ.get("MLFLOW_TRACKING_URI", "").partition(":///")
        return scheme + slashes + with_home(path) or sqlite_uri(self.database)

    @property
    def identity(self) -> str:
        """12 hex digits that identify the store even after its folder moves; created at first use.

        They distinguish stores that share a tracking server. Raises UserError where the file holds something else.
        """
        if self.shared is not None:
            return self.shared.identity()
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

    @property
    def settings(self) -> dict[str, str]:
        """What a process on another machine needs to use the store."""
        return {
            "root": str(self.root),
            "identity": self.identity,
            "address": self.shared.address if self.shared else "",
        }

    @property
    def leases(self) -> Leases | WorkingCopy:
        """Who drives a study, and who trains a run."""
        return self.shared or Leases(self.root)


def _read_identity(path: Path) -> str:
    check_own_file(path)
    text = path.read_bytes().decode(errors="replace").strip()
    if not re.fullmatch("[0-9a-f]{12}", text):
        raise UserError(
            f"{path} must hold 12 hex digits but holds {shown(text)}; write those of the tag transkd.store of its runs "
            "in MLflow, or delete the file, and `transkd sync` sends all runs again"
        )
    return text
