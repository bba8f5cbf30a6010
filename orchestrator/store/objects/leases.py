"""Leases and claims over objects: which process drives a study, and which trains a run, where there are no file locks.

A lease is the object `leases/STUDY/NUMBER` with the highest number. Its holder writes it again every `BEAT_S`; when it
ends, it empties it. One that was not written for `EXPIRY_S`, by the store's clock, may be followed by the next number,
which a store with conditional writes gives to one process. A number is never used again, so that a holder that was
stopped and goes on finds a higher one, and ends.
"""

from __future__ import annotations

import json
import math
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.store.objects.objects import ObjectInfo, Objects
from trainer.config import UserError, printable

BEAT_S = 20.0
EXPIRY_S = 100.0
OWN_S = 60.0
"""A holder that has not renewed its lease for so long asks whether it still has it before it writes."""
WHOLE = "+whole"
"""The name of the lease of all studies, which no study can have."""
ONLY = "+only"
"""The lease of all drivers of a store without conditional writes."""
LOOK_S = 1.0


def say(text: str) -> None:
    """Print what is waited for."""
    print(text, file=sys.stderr, flush=True)


class LostLeaseError(Exception):
    """Another process has this driver's lease."""


class Lease:
    """A lease that this process holds. `key`: its object."""

    def __init__(self, objects: Objects, key: str, text: bytes, *, is_numbered: bool) -> None:
        self.key = key
        self._objects = objects
        self._text = text
        self._is_numbered = is_numbered
        self._renewed_s = time.monotonic()
        self._lock = threading.Lock()

    def renew(self) -> None:
        """Say that the holder lives. Raises LostLeaseError where another process has the lease by now."""
        with self._lock:
            folder = self.key.rpartition("/")[0]
            names = [info.name for info in self._objects.list(folder)]
            if (max(names, default="") != self.key) if self._is_numbered else (self.key not in names):
                raise LostLeaseError(folder)
            self._objects.write(self.key, self._text)
            self._renewed_s = time.monotonic()

    def check(self) -> None:
        """Raise LostLeaseError where another process may have the lease."""
        if time.monotonic() - self._renewed_s > OWN_S:
            self.renew()

    def release(self) -> None:
        """Let another process take it."""
        with self._lock:
            if self._is_numbered:
                self._objects.write(self.key, b"")
            else:
                self._objects.delete(self.key)


class ObjectClaim:
    """The right to train one run."""

    def __init__(self, objects: Objects, key: str) -> None:
        self._objects = objects
        self._key = key

    def give_back(self) -> None:
        """Let others train the run. Claims of dead drivers stay, so that their numbers are not used again."""
        if self._key:
            self._objects.delete(self._key)


class ObjectLeases:
    """The leases and claims of a store at an address. A process drives one study, whose lease is `held`."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.held: Lease | None = None
        self._clock_s: float | None = None
        """The store's time less this process's monotonic one."""
        self._refused: dict[str, float] = {}
        """Run id -> when another driver was found to train it."""

    @contextmanager
    def study(self, name: str) -> Iterator[Lease]:
        """Hold a study's lease: one driver at a time. Raises UserError where another process has it, naming that."""
        with self._hold(name) as lease:
            others = self.drivers()
            if name != WHOLE and WHOLE in others:
                raise self._in_use(others[WHOLE])
            if name == WHOLE and (busy := [f"{who} ({study})" for study, who in others.items() if study != WHOLE]):
                raise self._in_use(", ".join(busy))
            self.held = lease
            try:
                yield lease
            finally:
                self.held = None

    def whole(self) -> Any:
        """Hold the store alone. Raises UserError where a driver runs, naming it."""
        return self.study(WHOLE)

    def drivers(self) -> dict[str, str]:
        """Study -> who drives it now."""
        found = {}
        for study, info in self._last("leases").items():
            if info.size and self._age_s(info) < EXPIRY_S and not _has_ended(about := self._read(info.name)):
                found[about.get("study") or study] = _who(about)
        return found

    def claim(self, run_id: str, about: str) -> ObjectClaim | None:
        """The right to train a run, until it is given back; None where another process has it. `about` is the study of
        the claimant. The caller holds its study's lease."""
        assert self.held is not None, "a claim ends with the lease of its driver"
        if not self.objects.creates_once:
            return ObjectClaim(self.objects, "")  # there is one driver
        if time.monotonic() - self._refused.get(run_id, -math.inf) < LOOK_S:
            return None
        text, number = _text(about, lease=self.held.key), 1
        while not self.objects.create(f"claims/{run_id}/{number:06}", text):
            last = max(self.objects.list(f"claims/{run_id}"), default=None)
            if last is not None and not self._is_dead(self._read(last.name).get("lease", "")):
                self._refused[run_id] = time.monotonic()
                return None
            number = 1 if last is None else int(last.name.rpartition("/")[2]) + 1
        return ObjectClaim(self.objects, f"claims/{run_id}/{number:06}")

    def claimant(self, run_id: str) -> str:
        """Who trains a run: `study NAME, pid 7 on HOST since 2026-01-01T00:00:00+00:00`."""
        last = max(self.objects.list(f"claims/{run_id}"), default=None)
        about = self._read(last.name) if last is not None else {}
        return printable(f"study {about['study']}, {_who(about)}") if about.get("study") else _who(about)

    @contextmanager
    def _hold(self, name: str) -> Iterator[Lease]:
        self._read_clock()
        lease = self._take(name) if self.objects.creates_once else self._flag(name)
        try:
            yield lease
        finally:
            with suppress(UserError):  # it expires
                lease.release()

    def _take(self, name: str) -> Lease:
        """The lease of a study, by the next number. Waits while a holder may have been killed."""
        folder, text = f"leases/{name}", _text(name)
        watched: ObjectInfo | None = None
        while True:
            last = max(self.objects.list(folder), default=None)
            if last is not None and not self._is_over(last):
                who = _who(self._read(last.name))
                if watched is not None and (last.name, last.written_s) != (watched.name, watched.written_s):
                    raise UserError(
                        f"study {name} is run by {who} in store {self.objects.address}; wait for it or end it"
                    )
                if watched is None:
                    left_s = max(EXPIRY_S - self._age_s(last), LOOK_S)
                    unless = f"going on in {left_s:.0f} s unless it answers"
                    say(f"study {name}: {who} may have been killed, or hang; {unless}")
                watched = last
                time.sleep(LOOK_S)
                continue
            number = 1 if last is None else int(last.name.rpartition("/")[2]) + 1
            if self.objects.create(key := f"{folder}/{number:06}", text):
                there = [info.name for info in self.objects.list(folder)]
                if max(there) == key:
                    for older in there[:-1]:
                        self.objects.delete(older)
                    return Lease(self.objects, key, text, is_numbered=True)

    def _flag(self, name: str) -> Lease:
        """The only driver's lease: who raises a flag and then sees no other is alone, as lists are up to date."""
        folder, text = f"leases/{ONLY}", _text(name)
        key = f"{folder}/{uuid.uuid4().hex}"
        self.objects.write(key, text)
        for info in self.objects.list(folder):
            if info.name == key:
                continue
            if not self._is_over(info):
                self.objects.delete(key)
                raise UserError(
                    f"store {self.objects.address} has no conditional writes, so that one driver at a time can use it; "
                    f"it is in use by {_who(self._read(info.name))}; wait for it or end it"
                )
            self.objects.delete(info.name)
        return Lease(self.objects, key, text, is_numbered=False)

    def _is_dead(self, lease: str) -> bool:
        """Whether a driver has ended for good: its lease is emptied or followed, or expired and followed now."""
        folder, _, number = lease.rpartition("/")
        last = max(self.objects.list(folder), default=None)
        if last is None or last.name != lease or not last.size:
            return True
        if not self._is_over(last):
            return False
        self.objects.create(f"{folder}/{int(number) + 1:06}", b"")
        return True

    def _is_over(self, info: ObjectInfo) -> bool:
        """Whether a lease was emptied or has expired, or its process has ended on this machine."""
        return not info.size or self._age_s(info) >= EXPIRY_S or _has_ended(self._read(info.name))

    def _last(self, folder: str) -> dict[str, ObjectInfo]:
        """The object of the highest number below each folder of a folder; without conditional writes the last flag."""
        return {info.name.split("/")[1]: info for info in self.objects.list(folder)}

    def _age_s(self, info: ObjectInfo) -> float:
        """Since when an object was not written, by the store's clock; by this machine's for who only reads."""
        now = time.time() if self._clock_s is None else time.monotonic() + self._clock_s
        return now - info.written_s

    def _read_clock(self) -> None:
        """Ask the store for its time, once."""
        if self._clock_s is None:
            key = f"probes/{uuid.uuid4().hex}"
            self.objects.write(key, b"now")
            (now,) = (info.written_s for info in self.objects.list("probes") if info.name == key)
            self._clock_s = now - time.monotonic()
            self.objects.delete(key)

    def _read(self, name: str) -> dict[str, Any]:
        try:
            about = json.loads(self.objects.read(name) or b"{}")
        except (FileNotFoundError, ValueError, RecursionError):
            return {}
        return about if isinstance(about, dict) else {}

    def _in_use(self, who: str) -> UserError:
        return UserError(f"store {self.objects.address} is in use by {who}; wait for it or end it")


def _text(study: str, **more: str) -> bytes:
    """What a lease or claim says of its holder."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    about = {"pid": os.getpid(), "host": socket.gethostname(), "machine": _machine(), "since": now, "study": study}
    return json.dumps({**about, "token": uuid.uuid4().hex, **more}).encode()


def _who(about: dict[str, Any]) -> str:
    if not {"pid", "host", "since"} <= about.keys():
        return "another driver that is just starting"
    return printable(f"pid {about['pid']} on {about['host']} since {about['since']}")


def _machine() -> str:
    """This start of this machine, and its container: where a pid names one process."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return ""


def _has_ended(about: dict[str, Any]) -> bool:
    """Whether a holder was a process of this machine that is no more."""
    if not about.get("machine") or about["machine"] != _machine():
        return False
    try:
        os.kill(int(about["pid"]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, ValueError, OverflowError):
        return False
    with suppress(OSError):  # in containers nobody may collect a process that was killed
        state = Path(f"/proc/{about['pid']}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
        return state.split()[0] == "Z"
    return False
