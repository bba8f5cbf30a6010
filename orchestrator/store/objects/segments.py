"""Segments: a journal in a store at an address, as numbered objects of whole lines that are written once.

A driver sends its own journal, `journals/STUDY.jsonl` of its working copy, as `journals/STUDY/000001` and on; readers
append the segments of others to the same files. Beside each file stands how much of it the store has.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from orchestrator.store.journal import JOURNALS
from orchestrator.store.objects.leases import LostLeaseError
from orchestrator.store.objects.objects import Objects
from trainer.config import UserError
from trainer.files.atomic import whole_json
from trainer.files.run_folder import write_text

FIRST = "+first"
"""The name in the store of the first journal, which no study can have."""
LOCK = ".journals.lock"


class Sent(NamedTuple):
    """How much of a journal the store has: its segments, and the bytes of the file that they hold."""

    segments: int
    size: int


class Segments:
    """The journals of a working copy and their segments."""

    def __init__(self, root: Path, objects: Objects) -> None:
        self.root = root
        self.objects = objects
        self._sending = threading.Lock()

    def fetch(self, driven_here: Collection[str] = ()) -> None:
        """Append what others have written to the files of their journals. `driven_here`: the journals that processes
        of this machine write, by their study."""
        with self._locked():
            for name, last in self._last().items():
                if name not in driven_here:
                    self._fetch(name, last)

    def adopt(self, name: str) -> None:
        """Bring a journal up to date that this process begins to write, under its lease. Lines that were not sent
        before another machine went on with it are set aside: their runs are repeated from what the store has."""
        with self._locked():
            last = self._last().get(name, 0)
            sent = self._sent(name)
            if last < sent.segments:
                raise UserError(
                    f"store {self.objects.address} holds {last} segments of journal {name}, and this machine has read "
                    f"{sent.segments}: it was emptied or replaced; delete {self.root} where that was meant"
                )
            if last > sent.segments and not self._was_sent(name, sent):
                path = self.path(name)
                if path.exists() and path.stat().st_size > sent.size:
                    shutil.copy2(path, path.with_name(f"{path.name}.unsent-{sent.segments:06}"))
                self._fetch(name, last)

    def send(self, name: str) -> bool:
        """Send the whole lines that the store lacks as the next segment; False where there are none. Raises
        LostLeaseError where another process has written that segment."""
        with self._sending:
            sent = self._sent(name)
            lines = self._unsent(name, sent)
            if not lines:
                return False
            number = sent.segments + 1
            if not self._put(f"{JOURNALS}/{name}/{number:06}", lines):
                raise LostLeaseError(name)
            self._record(name, Sent(number, sent.size + len(lines)))
            return True

    def send_all(self) -> None:
        """Send the whole of every journal of a folder that is copied. Raises UserError where the store has another."""
        there = self._last()
        for path in sorted([*self.root.glob("ledger.jsonl"), *(self.root / JOURNALS).glob("*.jsonl")]):
            name = FIRST if path.parent == self.root else path.stem
            held = b"".join(self.objects.read(f"{JOURNALS}/{name}/{n:06}") for n in range(1, there.get(name, 0) + 1))
            lines = path.read_bytes()
            lines = lines[: lines.rfind(b"\n") + 1]
            if not lines.startswith(held):
                raise UserError(
                    f"store {self.objects.address} holds another journal {name} than {path}; name an empty address"
                )
            if rest := lines[len(held) :]:
                self._put(f"{JOURNALS}/{name}/{there.get(name, 0) + 1:06}", rest)

    def path(self, name: str) -> Path:
        """The file of a journal in the working copy."""
        return self.root / "ledger.jsonl" if name == FIRST else self.root / JOURNALS / f"{name}.jsonl"

    def _put(self, name: str, lines: bytes) -> bool:
        if self.objects.creates_once:
            return self.objects.create(name, lines)
        self.objects.write(name, lines)
        return True

    def _fetch(self, name: str, last: int) -> None:
        """Append segments to a journal up to number `last`."""
        sent, path = self._sent(name), self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        for number in range(sent.segments + 1, last + 1):
            lines = self.objects.read(f"{JOURNALS}/{name}/{number:06}")
            with path.open("ab") as file:
                file.truncate(sent.size)  # behind it stands what was cut off, or was never sent
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
            sent = Sent(number, sent.size + len(lines))
            self._record(name, sent)

    def _last(self) -> dict[str, int]:
        """Journal -> the number of its last segment."""
        found: dict[str, int] = {}
        for info in self.objects.list(JOURNALS):
            _, name, number = info.name.split("/")
            found[name] = max(found.get(name, 0), int(number))
        return found

    def _was_sent(self, name: str, sent: Sent) -> bool:
        """Whether the next segment is what stands in the file: this machine sent it, and was killed before it could
        record that."""
        lines = self.objects.read(f"{JOURNALS}/{name}/{sent.segments + 1:06}")
        if not self._unsent(name, sent).startswith(lines):
            return False
        self._record(name, Sent(sent.segments + 1, sent.size + len(lines)))
        return self._last().get(name, 0) == sent.segments + 1

    def _unsent(self, name: str, sent: Sent) -> bytes:
        """The whole lines of a journal that the store lacks."""
        try:
            with self.path(name).open("rb") as file:
                file.seek(sent.size)
                lines = file.read()
        except FileNotFoundError:
            return b""
        return lines[: lines.rfind(b"\n") + 1]

    def _record_path(self, name: str) -> Path:
        return self.root / ".sent" / f"{name}.json"

    def _sent(self, name: str) -> Sent:
        found = whole_json(self._record_path(name)) or {}
        return Sent(int(found.get("segments", 0)), int(found.get("size", 0)))

    def _record(self, name: str, sent: Sent) -> None:
        path = self._record_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(sent._asdict()))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes of this machine from the same files."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / LOCK).open("a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
