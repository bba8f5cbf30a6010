"""The ledger: what happened to every run, folded from the store's journal; the truth that survives any crash.

Its events, in the order of a run's life: `study` (a driver begins), `told` (a search learns from earlier trials),
`trial` (it proposes), `reused`, `started`, `epoch`, `note`, `retried`; one of `finished`, `failed`, `stopped` and
`interrupted`; and `again`, after a failed trial that is to be tried once more.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from orchestrator.store.epochs import LOCK, Epochs
from orchestrator.store.events import masked_texts, problem
from orchestrator.store.full_disk import pausing
from orchestrator.store.journal import EpochLine, Reader, Writer, damaged, parse
from trainer.config import printable

STATUS = {
    "started": "running",
    "retried": "running",
    "interrupted": "interrupted",
    "finished": "finished",
    "failed": "failed",
    "stopped": "stopped",
}
"""What an event makes of its run; other events leave the status alone."""

RETRY = ("launch", "cause", "reason", "micro_batch")


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
    cause: str = ""
    """Why it failed, in one word; empty unless it did."""
    changed: str = ""
    """Time of the last change of status, ISO 8601."""
    members: list[Membership] = field(default_factory=list)
    epochs: Sequence[Mapping[str, float]] = field(default_factory=Epochs)
    """The metrics of each epoch, in order, each once."""
    config: dict[str, Any] = field(default_factory=dict)
    """All that was asked of it, as plain data; empty before its first start."""
    environment: dict[str, Any] = field(default_factory=dict)
    """What computed it: packages and git of the driver, then what the run itself found (device, threads, ...)."""
    data: dict[str, str] = field(default_factory=dict)
    """Fingerprints of the splits it read."""
    weights: dict[str, Any] = field(default_factory=dict)
    """What student and teacher started from: file, sha256, coverage."""
    artifacts: dict[str, Any] = field(default_factory=dict)
    """Where its files lie: `folder`, below the store, and the names in it."""
    imported: str = ""
    """The folder it was taken in from; empty where a driver of this store trained it."""
    retries: list[dict[str, Any]] = field(default_factory=list)
    """Of each attempt that another followed within one start of a driver: cause, reason, and a new micro-batch."""
    failures: dict[str, int] = field(default_factory=dict)
    """Attempts that failed, by cause."""
    notes: list[str] = field(default_factory=list)

    @property
    def why(self) -> str:
        """`nan: loss/pea is not finite at step 7`, `lost (4 times): ...`; of a pupil what its teacher failed of."""
        if not self.cause or self.cause == "teacher":
            return self.reason
        times = self.failures[self.cause]
        return f"{self.cause}{f' ({times} times)' if times > 1 else ''}: {self.reason}"

    def fold(self, event: Mapping[str, Any], driver: Mapping[str, Any]) -> None:
        """Take one more event about this run into account; `driver` is the environment of the one that wrote it."""
        kind = event["event"]
        if kind == "epoch":
            self._epochs.add(event["time"], event["metrics"])
            return
        self.key = event.get("key", self.key)
        if "study" in event:
            place = Membership(**{k: event[k] for k in ("study", "arm", "seed", "role") if k in event})
            if place not in self.members:
                self.members.append(place)
        if kind == "note":
            self.notes.append(event["text"])
        if (status := STATUS.get(kind)) is None:
            return
        if kind == "retried":
            self.retries.append({name: event[name] for name in RETRY if name in event} | _reason(event))
        if kind in ("retried", "failed") and (cause := event.get("cause")):
            self.failures[cause] = self.failures.get(cause, 0) + 1
        self.status = status
        self.changed = event["time"]
        self.attempts += status == "running"
        self.reason = _reason(event).get("reason", "")
        self.cause = event.get("cause", "")
        self.last = numbers(event.get("last", self.last))
        self.best = numbers(event.get("best", self.best))
        self.complexity = event.get("complexity", self.complexity)
        self.seconds = event.get("seconds", self.seconds)
        if status == "running":
            self.environment = dict(driver)
        self.environment = {**self.environment, **event.get("environment", {})}
        self.config = event.get("config", self.config)
        self.data = event.get("data", self.data)
        self.weights = event.get("weights", self.weights)
        self.artifacts = event.get("artifacts", self.artifacts)
        self.imported = event.get("imported", self.imported)

    @property
    def reported(self) -> Mapping[float, str]:
        """When each epoch was, by its number, ISO 8601."""
        return self._epochs.times

    @property
    def epochs_done(self) -> int:
        """Epochs that it has trained; of a finished run without a look at them."""
        if self.status == "finished" and "epoch" in self.last:
            return int(self.last["epoch"])
        return len(self.epochs)

    @property
    def epoch_s(self) -> float:
        """Mean seconds of an epoch; 0 before there was one."""
        if self.status == "finished" and self.seconds and self.epochs_done:
            return self.seconds / self.epochs_done
        return fmean(epoch.get("seconds", 0.0) for epoch in self.epochs) if self.epochs else 0.0

    def latest(self, metric: str) -> float | None:
        """A metric as the last epoch that has it measured it."""
        if self.status == "finished" and metric in self.last:
            return self.last[metric]
        return next((epoch[metric] for epoch in reversed(self.epochs) if metric in epoch), None)

    @property
    def _epochs(self) -> Epochs:
        assert isinstance(self.epochs, Epochs), "folded from a journal"
        return self.epochs


class _Fold:
    """A journal as far as it has been read: its runs, and its events but for the epochs, which the runs hold."""

    def __init__(self, path: Path) -> None:
        self.reader = Reader(path)
        self.runs: dict[str, LedgerRun] = {}
        self.events: list[dict[str, Any]] = []
        self.driver: dict[str, Any] = {}

    def catch_up(self) -> None:
        """Fold what was written since the last time."""
        epochs: dict[str, Epochs] = {}
        for event in self.reader.read(epochs_as_lines=True):
            if isinstance(event, EpochLine):
                if (found := epochs.get(event.run_id)) is None:
                    found = epochs[event.run_id] = self._run(event.run_id)._epochs
                found.add_line(event.offset, event.length)
                continue
            if why := problem(event):
                raise damaged(self.reader.path, _first_wrong(self.reader.path), why)
            if event["event"] != "epoch":
                event = masked_texts(event)  # earlier versions wrote some that are not
                self.events.append(event)
            if event["event"] == "study":
                self.driver = event.get("environment", {})
            if run_id := event.get("run_id"):
                self._run(run_id).fold(event, self.driver)

    def _run(self, run_id: str) -> LedgerRun:
        if run_id not in self.runs:
            self.runs[run_id] = LedgerRun(run_id, epochs=Epochs(self.reader.epochs_at))
        return self.runs[run_id]


class Mark(NamedTuple):
    """How far a reader of events has come, and in which reading of the file."""

    fold: object
    position: int


_FOLDS: dict[Path, _Fold] = {}
"""By path: whoever asks in a process, a journal is parsed once, and then only what it has grown by."""
_LOCK = threading.Lock()


class Ledger:
    """The ledger in one file. Reading never writes, so `status` and `report` work beside a live driver."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer = Writer(path)

    def append(self, event: Mapping[str, Any]) -> None:
        """Write one event, on disk when this returns. `time` is added where absent; NaN and infinity become null.

        Raises StoreFull where the disk is.
        """
        with pausing(self.path.parent):
            self._writer.append(masked_texts(event))

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
        """The events (but for the epochs) since a mark, and the mark that follows them. Where the file was replaced in
        between, `mark.fold` changes and the events are all of them."""
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

    def _fold(self) -> _Fold:
        fold = _FOLDS.get(self.path)
        if fold is None or not fold.reader.continues():
            fold = _FOLDS[self.path] = _Fold(self.path)
        try:
            with LOCK:
                fold.catch_up()
        except BaseException:
            # Half folded, or damaged: the next reader begins anew.
            del _FOLDS[self.path]
            raise
        return fold


def _first_wrong(path: Path) -> int:
    """The number of the first line whose event has something wrong."""
    with path.open("rb") as file:
        events = ((number, parse(line)) for number, line in enumerate(file, 1))
        return next((number for number, event in events if event is not None and problem(event)), 0)


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics as an event has them, with null for what is not finite, as numbers again."""
    if None not in metrics.values():
        return dict(metrics)
    return {name: math.nan if value is None else value for name, value in metrics.items()}


def _reason(event: Mapping[str, Any]) -> dict[str, str]:
    """The field `reason` of an event, printable and without passwords: earlier versions wrote it raw."""
    return {"reason": printable(event["reason"])} if "reason" in event else {}
