"""What a run's folder holds, as parameters, points and files for a tracker: read from disk, and nothing sent."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from trainer.config import digest

FILES = ("config.yaml", "epochs.jsonl", "result.json", "best.pt", "panel.png")
CLASS = "val/iou/"


@dataclass(frozen=True)
class RunInfo:
    """A run and its place in a study. `config` may be nested: parameters get dotted names (`optim.lr`)."""

    study: str
    arm: str
    seed: int | None
    role: str
    key: str
    run_id: str
    config: Mapping[str, Any]
    attempts: int = 1
    reason: str = ""

    @property
    def name(self) -> str:
        return self.arm if self.seed is None else f"{self.arm} seed {self.seed}"

    def tags(self, status: str) -> dict[str, str]:
        """What a tracker files the run under."""
        return {
            "mlflow.runName": self.name,
            "transkd.run_id": self.run_id,
            "transkd.key": self.key,
            "transkd.arm": self.arm,
            "transkd.seed": "" if self.seed is None else str(self.seed),
            "transkd.role": self.role,
            "transkd.status": status,
            "transkd.attempts": str(self.attempts),
            "transkd.reason": self.reason,
        }


class Record:
    """One reading of a run's folder; a run that has not written yet is empty."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        # A last line that is still being written has no newline yet: it is left for the next reading.
        self.epochs: list[dict[str, Any]] = [
            json.loads(line) for line in _text(run_dir / "epochs.jsonl").split("\n")[:-1] if line
        ]
        self.result: dict[str, Any] = json.loads(_text(run_dir / "result.json") or "{}")

    def points(self, epoch: Mapping[str, Any]) -> dict[str, float]:
        """The finite numbers of one epoch: infinity would become 1.8e308 on the server."""
        return {name: float(value) for name, value in epoch.items() if _is_finite(value)}

    @cached_property
    def not_finite(self) -> str:
        """`loss/pea at epoch 3: nan; ...`: what `points` leaves out."""
        return "; ".join(
            f"{name} at epoch {epoch['epoch']}: {value}"
            for epoch in self.epochs
            for name, value in epoch.items()
            if isinstance(value, float) and not math.isfinite(value)
        )

    @cached_property
    def summary(self) -> dict[str, float]:
        """Numbers of the whole run: `best/val/miou`, `complexity/params_m`, ..."""
        parts = {part: self.result.get(part) or {} for part in ("best", "complexity")}
        return {f"{part}/{n}": float(v) for part, values in parts.items() for n, v in values.items() if _is_finite(v)}

    @cached_property
    def per_class(self) -> dict[str, float]:
        """Class name to IoU, of the last epoch that was validated."""
        for epoch in reversed(self.epochs):
            if found := {n.removeprefix(CLASS): v for n, v in epoch.items() if n.startswith(CLASS)}:
                return found
        return {}

    @property
    def files(self) -> list[Path]:
        return [path for name in FILES if (path := self.run_dir / name).exists()]

    def content(self, *also: Any) -> str:
        """A digest that is equal when nothing has changed since."""
        return digest([self.epochs, self.result, [(path.name, path.stat().st_size) for path in self.files], *also])


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested data as dotted names and texts: `{"optim": {"lr": 0.1}}` is `{"optim.lr": "0.1"}`."""
    flat: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
