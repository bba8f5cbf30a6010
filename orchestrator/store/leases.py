"""Leases: file locks that say which process drives a study, and which trains a run. Many studies share a store.

The kernel releases a lock when its process ends, so a killed driver leaves nothing to clean up.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from trainer.config import UserError, message_of, printable
from trainer.config.input_files import check_own_file

ASKING_S = 0.5
"""How long to retry a held lock: who asks for its holder holds it for a moment."""
IMPORTS = "+import"
"""The name of the lease and the journal of imports, which no study can have."""
STARTING = "another driver that is just starting"


class Leases:
    """The locks of the store in one folder.

    `lease` is the lock of the whole store: shared by drivers, so that `repair`, and drivers of versions that knew one
    study at a time, have it alone.
    """

    def __init__(self, root: Path, name: str = "") -> None:
        self.root = root
        self.name = name or str(root)
        """The store's folder or address, for people."""
        self._whole = root / "lease"

    @contextmanager
    def study(self, name: str) -> Iterator[None]:
        """Hold a study's lease: one driver at a time. Raises UserError where another process has it, naming that."""
        with ExitStack() as held:
            try:
                held.enter_context(_locked(self._whole, fcntl.LOCK_SH))
            except BlockingIOError:
                raise self._in_use(_holder(self._whole)) from None
            try:
                held.enter_context(_locked(self._of_study(name), fcntl.LOCK_EX, about=name))
            except BlockingIOError:
                who = "import" if name == IMPORTS else f"study {name}"
                raise UserError(
                    f"{who} is run by {_holder(self._of_study(name))} in store {self.name}; wait for it or end it"
                ) from None
            yield

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Hold the store's lease alone. Raises UserError where a driver runs, naming it."""
        with ExitStack() as held:
            try:
                held.enter_context(_locked(self._whole, fcntl.LOCK_EX, about=""))
            except BlockingIOError:
                drivers = [f"{who} ({name})" if name else who for name, who in self.drivers().items()]
                raise self._in_use(", ".join(drivers) or STARTING) from None
            yield

    def drivers(self) -> dict[str, str]:
        """Study -> who drives it now; "" -> who has the whole store. The locks decide, as the pid in a file may be out
        of date."""
        found = {path.name: _driver(path) for path in sorted((self.root / "leases").glob("*"))}
        found[""] = _driver(self._whole)
        return {name: who for name, who in found.items() if who is not None}

    def claim(self, run_id: str, about: str) -> Claim | None:
        """The right to train a run, until it is given back; None where another process has it. `about` is the study of
        the claimant."""
        path = self._of_run(run_id)
        file = _open(path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        except OSError as error:
            file.close()
            raise _no_locks(path, error) from None
        _say(file, about)
        return Claim(file)

    def claimant(self, run_id: str) -> str:
        """Who trains a run: `study NAME, pid 7 on HOST since 2026-01-01T00:00:00+00:00`."""
        return _holder(self._of_run(run_id))

    def _of_study(self, name: str) -> Path:
        return self.root / "leases" / name

    def _of_run(self, run_id: str) -> Path:
        return self.root / "claims" / run_id

    def _in_use(self, who: str) -> UserError:
        return UserError(f"store {self.name} is in use by {who}; wait for it or end it")


class Claim:
    """The right to train one run."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def give_back(self) -> None:
        """Let others train the run."""
        # The file stays: one that is deleted may be open, and about to be locked, on another machine.
        self._file.truncate(0)
        self._file.close()


@contextmanager
def _locked(path: Path, kind: int, about: str | None = None) -> Iterator[None]:
    """Hold a lock; raise BlockingIOError where another process does. With `about` the file says who holds it."""
    with _open(path) as file:
        try:
            _lock(file, kind)
        except BlockingIOError:
            raise
        except OSError as error:
            raise _no_locks(path, error) from None
        if about is None:
            yield
            return
        _say(file, about)
        try:
            yield
        finally:
            # Emptied before the release: a later reader must not see a driver that has ended.
            file.truncate(0)
            file.flush()


def _open(path: Path) -> IO[str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    check_own_file(path)
    return path.open("a+", encoding="utf-8")


def _lock(file: IO[str], kind: int) -> None:
    end = time.monotonic() + ASKING_S
    while True:
        try:
            return fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise
            time.sleep(ASKING_S / 20)


def _no_locks(path: Path, error: OSError) -> UserError:
    root = path.parent if path.name == "lease" else path.parent.parent
    return UserError(f"store {root} must allow file locks but got {message_of(error)}; choose another")


def _say(file: IO[str], about: str) -> None:
    """Write into a locked file who holds it."""
    file.truncate(0)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": now, "study": about}, file)
    file.flush()


def _driver(path: Path) -> str | None:
    """Who holds a lock alone; None if nobody does."""
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


def _holder(path: Path) -> str:
    try:
        by = json.loads(path.read_text(encoding="utf-8"))
        who = f"pid {by['pid']} on {by['host']} since {by['since']}"
        return printable(f"study {by['study']}, {who}" if path.parent.name == "claims" and by["study"] else who)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return STARTING
