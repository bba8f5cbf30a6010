"""Fold: the journals of a ledger, read as they grow, and folded into its runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from heapq import merge
from operator import itemgetter
from pathlib import Path
from typing import Any

from orchestrator.store.epochs import Epochs
from orchestrator.store.events import masked_texts, problem
from orchestrator.store.journal import JOURNALS, EpochLine, Reader, damaged, parse
from orchestrator.store.ledger_run import STATUS, LedgerRun


def journals(first: Path) -> list[Path]:
    """The journals of a ledger: its first, and those of drivers, by name."""
    try:
        with os.scandir(first.parent / JOURNALS) as entries:
            return [first, *(Path(path) for path in sorted(e.path for e in entries if e.name.endswith(".jsonl")))]
    except (FileNotFoundError, NotADirectoryError):
        return [first]


class Journal:
    """A journal as far as it has been read."""

    def __init__(self, path: Path) -> None:
        self.reader = Reader(path)
        self.load = self.reader.epochs_at
        self.launch: dict[str, Any] = {}
        """Its last `study` event: the driver that writes it, and what that says of its environment."""
        self._time = ""
        self.seen: tuple[int, int, int] | None = None
        """Inode, length and time of the file when it was read last; None where it is to be opened to see."""

    def has_changed(self) -> bool:
        """Whether the file is another one, or another length, than when this was asked last."""
        try:
            now = self.reader.path.stat()
        except FileNotFoundError:
            seen = None
        else:
            seen = now.st_ino, now.st_size, now.st_mtime_ns
        changed, self.seen = seen is None or seen != self.seen, seen
        return changed

    def timed(self, *, epochs_as_lines: bool = True) -> Iterator[tuple[str, Journal, dict[str, Any] | EpochLine]]:
        """What was written since the last time, each with the latest time so far: a journal's own order counts, also
        where a clock went back."""
        for event in self.reader.read(epochs_as_lines=epochs_as_lines):
            if not isinstance(event, EpochLine):
                if why := problem(event):
                    raise damaged(self.reader.path, _first_wrong(self.reader.path), why)
                self._time = max(self._time, event.get("time", ""))
                if event["event"] != "epoch":
                    event = masked_texts(event)  # earlier versions wrote some that are not
            yield self._time, self, event


class Fold:
    """The journals as far as they have been read: their runs, and their events but for the epochs, which the runs
    hold."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journals: dict[Path, Journal] = {}
        self.runs: dict[str, LedgerRun] = {}
        self.events: list[dict[str, Any]] = []
        self._turns: dict[str, tuple[str, Journal]] = {}
        """Run id -> when its status changed last, and in which journal."""

    def catch_up(self) -> None:
        """Fold what was written since the last time, the events of several journals in the order of their times.

        Raises OutOfOrderError where that cannot follow what was folded before: a journal was replaced or edited, or a
        run's status changed before the change that another journal has told of.
        """
        for path in journals(self.path):
            if path not in self.journals:
                self.journals[path] = Journal(path)
        changed = [journal for journal in self.journals.values() if journal.has_changed()]
        if not all(journal.reader.continues() for journal in changed):
            raise OutOfOrderError
        epochs: dict[str, Epochs] = {}
        for time, journal, event in merge(*(journal.timed() for journal in changed), key=itemgetter(0)):
            if isinstance(event, EpochLine):
                if (found := epochs.get(event.run_id)) is None:
                    found = epochs[event.run_id] = self._run(event.run_id)._epochs
                found.add_line(journal.load, event.offset, event.length)
                continue
            if event["event"] != "epoch":
                self.events.append(event)
            if event["event"] == "study":
                journal.launch = event
            if run_id := event.get("run_id"):
                if event["event"] in STATUS:
                    self._turn(run_id, time, journal)
                self._run(run_id).fold(event, journal.launch)

    def forget_lengths(self) -> None:
        """Count all journals as changed."""
        for journal in self.journals.values():
            journal.seen = None

    def after(self, run_id: str, own: Path) -> str:
        """The time of a run's last change of status, where another journal than `own` has it: what is written next
        about it is later, whatever this machine's clock says. Empty elsewhere."""
        time, journal = self._turns.get(run_id, ("", None))
        return time if journal is not None and journal.reader.path != own else ""

    def _turn(self, run_id: str, time: str, journal: Journal) -> None:
        before, whose = self._turns.get(run_id, ("", journal))
        if whose is not journal and time < before:
            raise OutOfOrderError
        self._turns[run_id] = time, journal

    def _run(self, run_id: str) -> LedgerRun:
        if run_id not in self.runs:
            self.runs[run_id] = LedgerRun(run_id, epochs=Epochs())
        return self.runs[run_id]


class OutOfOrderError(Exception):
    """The journals are to be read again, together: they do not continue what was read."""


def _first_wrong(path: Path) -> int:
    """The number of the first line whose event has something wrong."""
    with path.open("rb") as file:
        events = ((number, parse(line)) for number, line in enumerate(file, 1))
        return next((number for number, event in events if event is not None and problem(event)), 0)
