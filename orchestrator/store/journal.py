"""Journal: an append-only file of events, one JSON object a line, fsynced; one writer, any number of readers.

A line that was cut off by a kill is never removed: the next append closes it and writes a `torn` event behind it, which
says that it may be skipped.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, overload

from orchestrator.store.events import problem
from trainer.config import UserError
from trainer.config.input_files import check_own_file

CHUNK = 1 << 20
"""Bytes that are parsed at once: one call of the parser for a thousand lines is faster than a thousand calls, and the
names of metrics become one string for all of them."""
MARK = 64
"""Bytes before the place where a reader stands, by which it knows that the file is still the one it has read."""


EPOCH = re.compile(
    rb'^\{"event": "epoch", "time": "[^"\\\n]*", "run_id": "([^"\\\n]*)", "metrics": \{[^{}\\\n]*\}\}\n', re.MULTILINE
)
"""An epoch's line as `Writer` writes it, with the run id as its group."""


START = b'{"event": "'
"""How each line begins that `Writer` writes, also one that was cut off."""
CUT = re.compile(r",?|[-+.eE0-9]+|t(r(ue?)?)?|f(a(l(se?)?)?)?|n(u(ll?)?)?")
"""What may stand behind the place where parsing ends, if the line was cut off: half a number or a word."""


JOURNALS = "journals"
"""The folder of the journals that drivers write, a file each, beside the first journal."""


def now() -> str:
    """The time of an event, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class EpochLine(NamedTuple):
    """An epoch's event that has not been parsed: of which run, and where it stands in the file."""

    run_id: str
    offset: int
    length: int


class Writer:
    """Appends to a journal."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writing = False

    def append(self, event: Mapping[str, Any]) -> None:
        """Write one event, on disk when this returns. `time` is added where absent; NaN and infinity become null."""
        if "event" not in event:
            raise ValueError(f"a ledger event needs the key 'event' but got {sorted(event)}")
        line = _line({"event": event["event"], "time": now(), **event})
        new = not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
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


class Reader:
    """Reads a journal as it grows: `read` gives what is new since the last time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = -1
        self._position = 0
        self._mark = b""
        self._number = 0
        self._damaged = 0
        self._strange = 0
        """The first line since the last event that is no event, and that no kill can have left."""

    def continues(self) -> bool:
        """Whether what was read is still what the file begins with; not so where it was replaced or edited."""
        if self._position == 0:
            return True
        check_own_file(self.path)
        try:
            with self.path.open("rb") as file:
                file.seek(self._position - len(self._mark))
                return os.fstat(file.fileno()).st_ino == self._file and file.read(len(self._mark)) == self._mark
        except FileNotFoundError:
            return False

    @overload
    def read(self) -> Iterator[dict[str, Any]]: ...
    @overload
    def read(self, *, epochs_as_lines: bool) -> Iterator[dict[str, Any] | EpochLine]: ...
    def read(self, *, epochs_as_lines: bool = False) -> Iterator[dict[str, Any] | EpochLine]:
        """The events since the last time, in order; `torn` ones are kept out of it. Raises UserError with file and line
        where the journal was damaged.

        With `epochs_as_lines` epochs are not parsed, but found: `epochs_at` parses them. Nine of ten lines are epochs.
        """
        check_own_file(self.path)
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            self._file = os.fstat(file.fileno()).st_ino
            file.seek(self._position)
            while chunk := file.read(CHUNK) + file.readline():
                found = None if self._damaged else self._found(chunk, epochs_as_lines)
                if found is None:
                    yield from self._one_by_one(io.BytesIO(chunk).readlines())
                else:
                    self._number += chunk.count(b"\n")
                    self._position += len(chunk)
                    self._mark = (self._mark + chunk[-MARK:])[-MARK:]
                    yield from found
        if self._strange:
            raise damaged(self.path, self._strange)

    def epochs_at(self, places: list[tuple[int, int]]) -> list[tuple[str, dict[str, Any]]]:
        """Time and metrics of the epochs' lines that stand at (offset, length). Raises UserError with file and line
        where one is damaged."""
        found = []
        with self.path.open("rb") as file:
            lines = [_at(file, *place) for place in places]
            for (offset, _), event in zip(places, _parse_all(b"".join(lines)) or map(parse, lines), strict=True):
                if event is None or (why := problem(event)):
                    file.seek(0)
                    raise damaged(self.path, file.read(offset).count(b"\n") + 1, why if event else "")
                found.append((event["time"], event["metrics"]))
        return found

    def _found(self, chunk: bytes, epochs_as_lines: bool) -> list[dict[str, Any] | EpochLine] | None:
        """What whole lines hold, in order; None where any of them needs a closer look."""
        places: list[EpochLine | None] = []  # None: an event of `rest`
        rest: list[bytes] = []
        end = 0
        for match in EPOCH.finditer(chunk) if epochs_as_lines else ():
            start, stop = match.span()
            if start > end:
                rest.append(chunk[end:start])
                places += [None] * rest[-1].count(b"\n")
            try:
                places.append(EpochLine(match[1].decode(), self._position + start, stop - start))
            except UnicodeDecodeError:
                return None
            end = stop
        rest.append(chunk[end:])
        if (events := _parse_all(b"".join(rest))) is None:
            return None
        places += [None] * (len(events) - places.count(None))
        in_order = iter(events)
        return [next(in_order) if place is None else place for place in places]

    def _one_by_one(self, lines: list[bytes]) -> Iterator[dict[str, Any]]:
        for line in lines:
            event = parse(line)
            if event is None and not line.isspace():
                if not _cut_off(line):
                    self._strange = self._strange or self._number + 1
                if not line.endswith(b"\n"):  # cut off, or being written: the next time will tell
                    return
                self._damaged = self._damaged or self._number + 1
            elif event is not None and event["event"] == "torn":
                self._damaged = self._strange = 0
            elif event is not None and self._damaged:
                raise damaged(self.path, self._damaged)
            self._advance(line)
            if event is not None and event["event"] != "torn":
                yield event

    def _advance(self, line: bytes) -> None:
        self._position += len(line)
        self._number += line.endswith(b"\n")  # an event may be read before the newline that closes it
        self._mark = (self._mark + line)[-MARK:]


def _at(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length)


def _line(event: Mapping[str, Any]) -> bytes:
    # An error may name a file whose name is no UTF-8: what cannot be written becomes a question mark.
    return json.dumps(_finite(event), ensure_ascii=False, allow_nan=False).encode(errors="replace") + b"\n"


def _finite(value: Any) -> Any:
    """NaN and infinity are no JSON: other readers of the file would stumble."""
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def damaged(path: Path, number: int, why: str = "") -> UserError:
    """The error of a damaged line, by its number."""
    what = f" ({why})" if why else ""
    store = path.parent.parent if path.parent.name == JOURNALS else path.parent
    return UserError(
        f"{path}:{number} must be a JSON event but is damaged{what}; `transkd repair --store {store}` keeps a copy and "
        "goes on with the whole lines"
    )


def parse(line: bytes) -> dict[str, Any] | None:
    """The event in a line; None where there is none."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and "event" in event else None


def _parse_all(chunk: bytes) -> list[dict[str, Any]] | None:
    """All events of these lines, or None where any of them needs a closer look."""
    lines = chunk.split(b"\n")
    if not lines[-1]:
        lines.pop()
    try:
        events = json.loads(b"[" + b",".join(lines) + b"]")
    except (ValueError, RecursionError):
        return None
    sound = len(events) == len(lines) and all(
        isinstance(event, dict) and event.get("event", "torn") != "torn" for event in events
    )
    return events if sound else None


def _cut_off(line: bytes) -> bool:
    """Whether a kill or a full disk can have left this line: the first bytes of an event, or bytes never written."""
    text = line.rstrip(b"\n")
    if not text.strip(b"\0"):
        return not line.endswith(b"\n")
    if not (text.startswith(START) or START.startswith(text)):
        return False
    try:
        json.loads(text.decode())
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    except json.JSONDecodeError as error:
        in_a_text = error.msg.startswith("Unterminated string") or "escape" in error.msg
        return in_a_text or CUT.fullmatch(error.doc[error.pos :]) is not None
    except (ValueError, RecursionError):
        pass
    return False


def _repair(handle: int) -> bytes:
    """What must stand before the next event, given how the file ends: nothing, a newline, or a `torn` event."""
    size = os.fstat(handle).st_size
    tail = b""
    while len(tail) < size and b"\n" not in tail.rstrip():
        start = max(0, size - 2 * len(tail) - 4096)
        tail = os.pread(handle, size - start, start)
    closed = b"" if not tail or tail.endswith(b"\n") else b"\n"
    last = tail.rstrip().rpartition(b"\n")[2]
    if not last or parse(last) is not None:
        return closed
    return closed + _line({"event": "torn", "time": now()})


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
