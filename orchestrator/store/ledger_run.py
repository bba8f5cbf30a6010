"""LedgerRun: all that the ledger says of one run, folded from its events."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from orchestrator.store.epochs import Epochs
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
    trained_by: str = ""
    """The study whose driver has started it last."""
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

    def fold(self, event: Mapping[str, Any], launch: Mapping[str, Any]) -> None:
        """Take one more event about this run into account; `launch` is the `study` event of the driver that wrote it,
        empty where there is none."""
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
        if kind == "started":
            self.environment = dict(launch.get("environment", {}))
            self.trained_by = event.get("study") or launch.get("study") or self.trained_by
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


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics as an event has them, with null for what is not finite, as numbers again."""
    if None not in metrics.values():
        return dict(metrics)
    return {name: math.nan if value is None else value for name, value in metrics.items()}


def _reason(event: Mapping[str, Any]) -> dict[str, str]:
    """The field `reason` of an event, printable: earlier versions wrote it raw."""
    return {"reason": printable(event["reason"])} if "reason" in event else {}
