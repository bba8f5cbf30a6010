"""Configs of runs that train side by side, and what trains them and remembers how each ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer.config import TrainConfig
from trainer.place import Place
from trainer.training.loop import fit_together
from trainer.training.member import Run

Make = Callable[..., Any]
Ended = dict[str, Exception | None]

ARMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "alone": ({}, {"teacher": None}),
    "csf and pea": ({"csf": {}, "pea": {}}, {}),
    "logits": ({"kd": {}}, {"optim.lr": 5e-3, "data.class_weights": "auto", "optim.norm_batch": 4}),
    "another network": (
        {"pea_ea": {}, "cwd": {"weight": 2.0}},
        {"student.name": "segformer_mini", "optim.schedule": "reference", "optim.epochs": 3, "eval.every": 2},
    ),
}


def arms(tiny: Make, changes: dict[str, Any]) -> dict[str, TrainConfig]:
    found = {}
    for name, (distill, own) in ARMS.items():
        whole = {"optim.norm_batch": 2, **own} | changes
        found[name] = tiny(distill, whole if not changes.get("data.select") else {**whole, "optim.norm_batch": 2})
    return found


def nothing(metrics: dict[str, float], path: Path | None) -> None:
    """A report that nobody reads."""


class Side:
    """Runs cohorts below a folder, and remembers how each member ended."""

    def __init__(self, root: Path, cache: Path) -> None:
        self.root, self.cache = root, cache
        self.ended: Ended = {}
        self.epochs: dict[str, list[float]] = {}

    def place(self, name: str, **changes: Any) -> Place:
        return Place(out_dir=self.root / name, cache_dir=self.cache, device="cpu", **changes)

    def run(self, name: str, config: TrainConfig, stop: float | None = None, **place: Any) -> Run:
        def report(metrics: dict[str, float], path: Path | None) -> bool:
            self.epochs.setdefault(name, []).append(metrics["epoch"])
            return metrics["epoch"] == stop

        def ended(error: Exception | None) -> None:
            assert name not in self.ended
            self.ended[name] = error and error.with_traceback(None)  # whose frames hold tensors

        return Run(config, self.place(name, **place), report, ended)

    def train(self, configs: dict[str, TrainConfig], stop: dict[str, float] | None = None, **place: Any) -> Ended:
        self.ended, self.epochs = {}, {}
        fit_together([self.run(name, config, (stop or {}).get(name), **place) for name, config in configs.items()])
        return self.ended
