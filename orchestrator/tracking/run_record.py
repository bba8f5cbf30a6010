"""A run as a tracker is told of it: parameters, tags, points and files. Nothing is sent from here."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from orchestrator.store.ledger import LedgerRun
from orchestrator.tracking.mlflow_server import Point
from trainer.config import digest

FILES = ("config.yaml", "epochs.jsonl", "result.json", "best.pt", "panel.png")
CLASS = "val/iou/"


@dataclass(frozen=True)
class Record:
    """One run in one study, as the ledger tells it, and the folder that holds its files."""

    study: str
    arm: str
    seed: int | None
    role: str
    run: LedgerRun
    folder: Path

    @property
    def run_id(self) -> str:
        return self.run.run_id

    @property
    def status(self) -> str:
        return self.run.status

    @property
    def params(self) -> dict[str, str]:
        """Its config under dotted names (`optim.lr`); none of a run that was never started."""
        return flatten(self.run.config)

    @property
    def tags(self) -> dict[str, str]:
        """What a tracker files the run under."""
        seed = "" if self.seed is None else str(self.seed)
        return {
            "mlflow.runName": f"{self.arm} seed {seed}" if seed else self.arm,
            "transkd.run_id": self.run_id,
            "transkd.key": self.run.key,
            "transkd.arm": self.arm,
            "transkd.seed": seed,
            "transkd.role": self.role,
            "transkd.status": self.status,
            "transkd.attempts": str(self.run.attempts),
            "transkd.cause": self.run.cause,
            "transkd.reason": self.run.reason,
            "transkd.not_finite": self.not_finite,
        }

    def points(self, held: Container[int]) -> dict[int, list[Point]]:
        """The finite numbers of each epoch but those in `held`: infinity would become 1.8e308 on the server."""
        found = {}
        for epoch in self.run.epochs:
            if (step := int(epoch["epoch"])) not in held:
                when = milliseconds(self.run.reported[epoch["epoch"]])
                found[step] = [Point(name, float(v), step, when) for name, v in epoch.items() if _is_finite(v)]
        return found

    @property
    def not_finite(self) -> str:
        """`loss/pea at epoch 3; ...`: what `points` leaves out."""
        left_out = [
            f"{name} at epoch {epoch['epoch']:.0f}"
            for epoch in self.run.epochs
            for name, value in epoch.items()
            if isinstance(value, float) and not math.isfinite(value)
        ]
        return "; ".join(left_out)

    @property
    def summary(self) -> dict[str, float]:
        """Numbers of the whole run: `best/val/miou`, `complexity/params_m`, ..."""
        parts = {"best": self.run.best, "complexity": self.run.complexity}
        return {f"{part}/{n}": float(v) for part, values in parts.items() for n, v in values.items() if _is_finite(v)}

    @property
    def ended_ms(self) -> int:
        """When it ended, in milliseconds since 1970; when it started, of a run that goes on."""
        return milliseconds(self.run.changed)

    @property
    def per_class(self) -> dict[str, float]:
        """Class name to IoU, of the last epoch that was validated."""
        for epoch in reversed(self.run.epochs):
            if found := {n.removeprefix(CLASS): v for n, v in epoch.items() if n.startswith(CLASS)}:
                return found
        return {}

    @cached_property
    def files(self) -> list[Path]:
        return [path for name in FILES if (path := self.folder / name).exists()]

    @property
    def content(self) -> str:
        """A digest that is equal when nothing has changed since."""
        sizes = [(path.name, path.stat().st_size) for path in self.files]
        return digest([self.tags, [dict(epoch) for epoch in self.run.epochs], self.summary, sizes])


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested data as dotted names and texts: `{"optim": {"lr": 0.1}}` is `{"optim.lr": "0.1"}`."""
    flat: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value if isinstance(value, str) else json.dumps(value)
    return flat


def named_digests(paths: Iterable[Path]) -> dict[Path, str]:
    """What each file holds, in 12 hex digits."""
    found = {}
    for path in paths:
        with path.open("rb") as file:
            found[path] = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    return found


def milliseconds(time: str) -> int:
    """ISO 8601 in milliseconds since 1970."""
    return int(datetime.fromisoformat(time).timestamp() * 1000)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
