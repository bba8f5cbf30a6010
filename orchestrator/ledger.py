"""The ledger: an append-only record of what happened to every run; the truth that survives any crash.

One JSON object a line, one writer (the holder of the store's lease), fsynced. A line that was cut off by a kill is
never removed: the next append closes it and writes a `torn` event behind it, which says it may be skipped.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainer.config import UserError

STATUS = {"started": "running", "finished": "finished", "failed": "failed", "stopped": "stopped"}
"""What an event makes of its run; other events (`reused`, `study`, `trial`) leave the status alone."""


@dataclass(frozen=True)
class Membership:
    """The place of a run in a study: one run may stand in several."""

    study: str
    arm: str = ""
    seed: int | None = None
    role: str = "arm"


@dataclass
class LedgerRun:
    """All that the ledger says of one run, its events folded in order."""

    run_id: str
    key: str = ""
    status: str = "missing"
    attempts: int = 0
    last: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    complexity: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    reason: str = ""
    changed: str = ""
    """Time of the last change of status, ISO 8601."""
    members: list[Membership] = field(default_factory=list)

    def fold(self, event: Mapping[str, Any]) -> None:
        """Take one more event about this run into account."""
        self.key = event.get("key", self.key)
        if "study" in event:
            place = Membership(**{k: event[k] for k in ("study", "arm", "seed", "role") if k in event})
            if place not in self.members:
                self.members.append(place)
        if (status := STATUS.get(event["event"])) is None:
            return
        self.status = status
        self.changed = event["time"]
        self.attempts += status == "running"
        self.reason = event.get("reason", "")
        self.last = _numbers(event.get("last", self.last))
        self.best = _numbers(event.get("best", self.best))
        self.complexity = event.get("complexity", self.complexity)
        self.seconds = event.get("seconds", self.seconds)


class Ledger:
    """The ledger in one file. Reading never writes, so `status` and `report` work beside a live driver."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writing = False
        self._folded: tuple[int, dict[str, LedgerRun]] = (-1, {})

    def append(self, event: Mapping[str, Any]) -> None:
        """Write one event, on disk when this returns. `time` is added where absent; NaN and infinity become null."""
        if "event" not in event:
            raise ValueError(f"a ledger event needs the key 'event' but got {sorted(event)}")
        line = _line({"event": event["event"], "time": datetime.now(UTC).isoformat(timespec="milliseconds"), **event})
        new = not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            if not self._writing:
                line = _repair(handle) + line
            _write(handle, line)
            self._writing = True
        except BaseException:
            # What a failed write (a full disk) left behind is closed by the next append.
            self._writing = False
            raise
        finally:
            os.close(handle)
        if new:
            _sync_folder(self.path.parent)

    def events(self) -> Iterator[dict[str, Any]]:
        """All events in order. Raises UserError with file and line where the ledger was damaged."""
        damaged: int | None = None
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            for number, line in enumerate(file, start=1):
                if line.isspace():
                    continue
                event = _parse(line)
                if event is None:
                    damaged = damaged or number
                elif event["event"] == "torn":
                    damaged = None
                elif damaged:
                    raise UserError(f"{self.path}:{damaged} must be a JSON event but is damaged; correct or delete it")
                else:
                    yield event

    def outcomes(self) -> dict[str, LedgerRun]:
        """Every run by its id, in the order in which they first appear."""
        size = self.path.stat().st_size if self.path.exists() else 0
        # The file only grows, so its size names its content.
        if self._folded[0] != size:
            runs: dict[str, LedgerRun] = {}
            for event in self.events():
                if run_id := event.get("run_id"):
                    runs.setdefault(run_id, LedgerRun(run_id)).fold(event)
            self._folded = (size, runs)
        return dict(self._folded[1])

    def finished(self, run_id: str) -> LedgerRun | None:
        """The run, if it has finished: then it need not be run again, in this study or another."""
        run = self.outcomes().get(run_id)
        return run if run and run.status == "finished" else None


def _line(event: Mapping[str, Any]) -> bytes:
    return json.dumps(_finite(event), ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _finite(value: Any) -> Any:
    """NaN and infinity are no JSON: other readers of the file would stumble."""
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: math.nan if value is None else value for name, value in metrics.items()}


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None


def _repair(handle: int) -> bytes:
    """What must stand before the next event, given how the file ends: nothing, a newline, or a `torn` event."""
    size = os.fstat(handle).st_size
    tail = b""
    while len(tail) < size and b"\n" not in tail.rstrip():
        start = max(0, size - 2 * len(tail) - 4096)
        tail = os.pread(handle, size - start, start)
    closed = b"" if not tail or tail.endswith(b"\n") else b"\n"
    last = tail.rstrip().rpartition(b"\n")[2]
    if not last or _parse(last) is not None:
        return closed
    return closed + _line({"event": "torn", "time": datetime.now(UTC).isoformat(timespec="milliseconds")})


def _write(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]
    os.fsync(handle)


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
