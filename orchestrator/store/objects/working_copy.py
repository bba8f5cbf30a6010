"""Working copy: the local folder through which a store at an address is used. What reads a store reads files there."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import signal
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.store.disks import own_folder
from orchestrator.store.leases import Leases
from orchestrator.store.objects import run_files
from orchestrator.store.objects.address import as_address, connect
from orchestrator.store.objects.leases import BEAT_S, Lease, LostLeaseError, ObjectClaim, ObjectLeases
from orchestrator.store.objects.objects import Objects
from orchestrator.store.objects.segments import Segments
from trainer.config import UserError, masked, shown
from trainer.files.run_folder import LAST, write_text

ADDRESS = "address"
"""In a working copy: the file that names its address."""
SEND_S = 10.0
"""The journal is sent so often, where it has grown."""


def working_folder(address: str) -> Path:
    """The working copy of an address on every machine: below `TRANSKD_CACHE`, else `~/.cache/transkd`; where these are
    on a network file system, below /var/tmp."""
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", address.partition("://")[2])[-40:].strip("-.")
    return own_folder() / "stores" / f"{name}-{hashlib.sha256(address.encode()).hexdigest()[:8]}"


def opened(address: str, root: Path | None = None) -> Path:
    """The folder of an address's working copy, made where there is none."""
    folder = root or working_folder(address)
    if not (folder / ADDRESS).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / ADDRESS, address + "\n")
    return folder


def working_copy(root: Path) -> WorkingCopy | None:
    """The working copy in a folder; None where that is a store itself."""
    return _known(root) if (root / ADDRESS).is_file() else None


@functools.cache
def _known(root: Path) -> WorkingCopy:
    address = as_address((root / ADDRESS).read_text(encoding="utf-8").strip())
    if address is None:
        raise UserError(f"{root / ADDRESS} must hold an address such as s3://bucket/store; delete {root}")
    return WorkingCopy(root, address)


class WorkingCopy:
    """A folder with the layout of a store, and what brings it and the address up to date. It has the methods of
    `Leases`."""

    def __init__(self, root: Path, address: str) -> None:
        self.root = root
        self.address = address
        self._here = Leases(root, masked(address))
        self._driven = ""
        """The study that this process drives."""

    @functools.cached_property
    def objects(self) -> Objects:
        """The objects at the address."""
        return connect(self.address)

    @functools.cached_property
    def segments(self) -> Segments:
        """The journals."""
        return Segments(self.root, self.objects)

    @functools.cached_property
    def _leases(self) -> ObjectLeases:
        return ObjectLeases(self.objects)

    def refresh(self) -> None:
        """Read what others have written to the ledger."""
        self.segments.fetch(self._here.drivers().keys())

    def refresh_all(self) -> None:
        """Read the ledger, and what else a reader of studies needs."""
        try:
            self._check_identity(self.objects.read("identity").decode(errors="replace").strip())
        except FileNotFoundError:
            self.objects.check_bucket()
        self.refresh()
        for info in self.objects.list("diffs"):
            path = self.root / info.name
            if not path.exists() and Path(info.name).name == info.name.removeprefix("diffs/"):
                path.parent.mkdir(exist_ok=True)
                write_text(path, self.objects.read(info.name).decode(errors="replace"))

    def identity(self) -> str:
        """The store's identity, made where it has none."""
        if self.objects.creates_once:
            self.objects.create("identity", f"{uuid.uuid4().hex[:12]}\n".encode())
        else:
            self._write_identity()
        found = self.objects.read("identity").decode(errors="replace").strip()
        self._check_identity(found)
        return found

    def _write_identity(self) -> None:
        try:
            self.objects.read("identity")
        except FileNotFoundError:
            self.objects.write("identity", f"{uuid.uuid4().hex[:12]}\n".encode())

    def _check_identity(self, found: str) -> None:
        if not re.fullmatch("[0-9a-f]{12}", found):
            raise UserError(f"{self.objects.address}/identity must hold 12 hex digits but holds {shown(found)}")
        path = self.root / "identity"
        if not path.exists():
            write_text(path, found + "\n")
        elif (known := path.read_text(encoding="utf-8").strip()) != found:
            raise UserError(
                f"store {self.objects.address} was replaced: its identity is {found}, and the copy of it here has "
                f"{known}; delete {self.root}"
            )

    def fetch_run(self, run_id: str, *, whole: bool = True) -> None:
        """Bring a run's folder here up to date, where another machine has trained it since."""
        run_files.fetch(self.objects, self.root, run_id, whole=whole)

    def has_checkpoint(self, run_id: str) -> bool:
        """Whether a run's last.pt is at the address."""
        manifest = run_files.read_manifest(self.objects, run_id)
        return manifest is not None and LAST in manifest["files"]

    def settle_run(self, run_id: str) -> None:
        """Upload what this machine has of a run that it trained, where its own process could not."""
        changed = run_files.has_changed(self.root, run_id) and (self.root / "runs" / run_id / LAST).is_file()
        if changed and run_files.is_ours(self.objects, self.root, run_id):
            run_files.upload(self.objects, self.root, run_id)

    @contextmanager
    def study(self, name: str) -> Iterator[None]:
        """Drive a study: hold its lease, here and at the address, send its journal as it grows, and its report at the
        end. Where another machine takes the lease, this process is interrupted and a UserError raised."""
        lost = threading.Event()
        with self._here.study(name), self._leases.study(name) as lease:
            self._driven = name
            self.refresh()
            self.segments.adopt(name)
            over = threading.Event()
            thread = threading.Thread(target=self._beat, args=(name, lease, lost, over), daemon=True)
            thread.start()
            try:
                yield
            except KeyboardInterrupt:
                if lost.is_set():
                    raise self._taken(name) from None
                raise
            finally:
                over.set()
                thread.join()
                if not lost.is_set():
                    self.send()
                    self._send_files(name)
            if lost.is_set():
                raise self._taken(name)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Hold the store alone."""
        with self._here.whole(), self._leases.whole():
            yield

    def drivers(self) -> dict[str, str]:
        """Study -> who drives it now."""
        return self._leases.drivers()

    def claim(self, run_id: str, about: str) -> WorkingClaim | None:
        """The right to train a run; None where another process has it."""
        claim = self._leases.claim(run_id, about)
        if claim is None:
            return None
        self.refresh()  # who had it before has written how the run ended
        return WorkingClaim(self, run_id, claim)

    def claimant(self, run_id: str) -> str:
        """Who trains a run."""
        return self._leases.claimant(run_id)

    def send(self) -> None:
        """Send the journal of the study that this process drives."""
        if (lease := self._leases.held) is not None:
            try:
                lease.check()
                self.segments.send(self._driven)
            except LostLeaseError:
                raise self._taken(self._driven) from None

    def _send_files(self, name: str) -> None:
        """Send the report of a study, and how the code differed from its commit."""
        folders = (self.root / "studies" / name, self.root / "diffs")
        there = {info.name for info in self.objects.list("diffs")}
        for path in (path for folder in folders for path in sorted(folder.glob("*")) if path.is_file()):
            key = path.relative_to(self.root).as_posix()
            if key not in there and not path.name.startswith("."):
                self.objects.write(key, path.read_bytes())

    def _beat(self, name: str, lease: Lease, lost: threading.Event, over: threading.Event) -> None:
        """Renew the lease and send the journal, until the driver ends or another has the lease."""
        beats = 0
        while not over.wait(SEND_S):
            beats += 1
            try:
                if beats % round(BEAT_S / SEND_S) == 0:
                    lease.renew()
                lease.check()
                self.segments.send(name)
            except LostLeaseError:
                lost.set()
                os.kill(os.getpid(), signal.SIGINT)
                return
            except UserError:
                continue  # the store does not answer now; `check` asks before the next segment

    def _taken(self, name: str) -> UserError:
        return UserError(
            f"study {name} was taken over by another driver in store {masked(self.address)}, as this one did not "
            "answer for a while; nothing is lost: `transkd status` shows who drives it"
        )


class WorkingClaim:
    """The right to train one run of a store at an address."""

    def __init__(self, copy: WorkingCopy, run_id: str, claim: ObjectClaim) -> None:
        self._copy = copy
        self._run_id = run_id
        self._claim = claim

    def give_back(self) -> None:
        """Let others train the run, once they can read what has become of it."""
        self._copy.settle_run(self._run_id)
        self._copy.send()
        self._claim.give_back()
