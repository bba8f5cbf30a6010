"""The ledger: what happened to every run, folded from the store's journals; the truth that survives any crash.

Its events, in the order of a run's life: `study` (a driver begins), `told` (a search learns from earlier trials),
`trial` (it proposes), `reused`, `started`, `epoch`, `note`, `retried`; one of `finished`, `failed`, `stopped` and
`interrupted`; and `again`, after a failed trial that is to be tried once more.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from heapq import merge
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.store.epochs import LOCK
from orchestrator.store.events import masked_texts
from orchestrator.store.fold import Fold, Journal, OutOfOrderError, journals
from orchestrator.store.full_disk import pausing
from orchestrator.store.journal import JOURNALS, EpochLine, Writer, now
from orchestrator.store.ledger_run import STATUS, LedgerRun


class Mark(NamedTuple):
    """How far a reader of events has come, and in which reading of the journals."""

    fold: object
    position: int


_FOLDS: dict[Path, Fold] = {}
"""By the first journal: whoever asks in a process, a journal is parsed once, and then only what it has grown by."""
_LOCK = threading.Lock()


class Ledger:
    """The ledger of a store: its journals, folded into one. Reading never writes, so `status` and `report` work beside
    live drivers.

    `path` is the first journal. A driver gives the name of its own, which it alone writes, as it holds the lease of
    that name; without one, the first is written.
    """

    def __init__(self, path: Path, journal: str = "") -> None:
        self.path = path
        self.own = path.parent / JOURNALS / f"{journal}.jsonl" if journal else path
        self._writer = Writer(self.own)

    @property
    def exists(self) -> bool:
        """Whether anything has been written."""
        return any(path.exists() for path in journals(self.path))

    def append(self, event: Mapping[str, Any]) -> None:
        """Write one event, on disk when this returns. `time` is added where absent; NaN and infinity become null.

        Raises StoreFull where the disk is.
        """
        if "time" not in event and event.get("event") in STATUS and (after := self._after(event.get("run_id", ""))):
            event = {**event, "time": max(now(), after)}
        with pausing(self.path.parent):
            self._writer.append(masked_texts(event))

    def _after(self, run_id: str) -> str:
        """The earliest time for an event of a run whose status another driver changed last; else empty."""
        if not any(path != self.own and path.exists() for path in journals(self.path)):
            return ""
        with _LOCK:
            before = self._fold().after(run_id, self.own)
        moment = before and datetime.fromisoformat(before) + timedelta(milliseconds=1)
        return moment.isoformat(timespec="milliseconds") if moment else ""

    def launch(self) -> dict[str, Any]:
        """The last `study` event of this driver's own journal; empty before the first."""
        with _LOCK:
            journal = self._fold().journals.get(self.own)
            return journal.launch if journal is not None else {}

    def whole(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """All events in order, epochs too, each with the `study` event of the driver that wrote it (empty where its
        journal has none)."""
        each = (Journal(path).timed(epochs_as_lines=False) for path in journals(self.path))
        for _, journal, event in merge(*each, key=itemgetter(0)):
            assert not isinstance(event, EpochLine)
            if event["event"] == "study":
                journal.launch = event
            yield journal.launch, event

    def append_epochs(self, run_id: str, epochs: Iterable[Mapping[str, Any]]) -> None:
        """Write those of a run's epochs that the ledger lacks."""
        run = self.run(run_id)
        there = {epoch["epoch"] for epoch in run.epochs} if run else set()
        for epoch in epochs:
            if epoch["epoch"] not in there:
                self.append({"event": "epoch", "run_id": run_id, "metrics": epoch})

    def events(self) -> Iterator[dict[str, Any]]:
        """All events in order but for the epochs, which stand in `outcomes`. Raises UserError with file and line where
        the ledger was damaged."""
        with _LOCK:
            return iter(list(self._fold().events))

    def events_from(self, mark: Mark | None) -> tuple[list[dict[str, Any]], Mark]:
        """The events (but for the epochs) since a mark, and the mark that follows them. Where the journals were read
        anew in between, `mark.fold` changes and the events are all of them."""
        with _LOCK:
            fold = self._fold()
            start = mark.position if mark is not None and mark.fold is fold else 0
            return fold.events[start:], Mark(fold, len(fold.events))

    def outcomes(self) -> dict[str, LedgerRun]:
        """Every run by its id, in the order in which they first appear. They follow the ledger as it grows."""
        with _LOCK:
            return dict(self._fold().runs)

    def run(self, run_id: str) -> LedgerRun | None:
        """One run by its id; None before its first event."""
        with _LOCK:
            return self._fold().runs.get(run_id)

    def finished(self, run_id: str) -> LedgerRun | None:
        """The run, if it has finished: then it need not be run again, in this study or another."""
        run = self.run(run_id)
        return run if run and run.status == "finished" else None

    def look_closely(self) -> None:
        """Let the next reading open every journal: a network disk may tell its length late to who only asks for it."""
        with _LOCK:
            if (fold := _FOLDS.get(self.path)) is not None:
                fold.forget_lengths()

    def _fold(self) -> Fold:
        fold = _FOLDS.setdefault(self.path, Fold(self.path))
        try:
            with LOCK:
                try:
                    fold.catch_up()
                except OutOfOrderError:
                    fold = _FOLDS[self.path] = Fold(self.path)
                    fold.catch_up()
        except BaseException:
            # Half folded, or damaged: the next reader begins anew.
            del _FOLDS[self.path]
            raise
        return fold
