"""The trackers beside MLflow that a cluster spec may name: each brings its copy of one run up to date."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from orchestrator.tracking.run_record import Record
from orchestrator.tracking.tensorboard import TensorBoard
from orchestrator.tracking.weights_and_biases import WeightsAndBiases
from trainer.config import require


class RunTracker(Protocol):
    """A copy of the store's runs elsewhere. What it holds already is not sent again."""

    def send(self, record: Record) -> None:
        """Bring one run up to date; raises what the tracker's package raises."""


TRACKERS: dict[str, Callable[[Path], RunTracker]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}
"""Name in `tracking:` -> its tracker, which keeps what it writes in the folder that it is given."""
PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb"}
"""The module that a tracker writes with."""


def check_trackers(names: Sequence[str]) -> None:
    """Raise UserError where the package of a tracker is not installed."""
    for name in names:
        require(f"tracking: {name}", PACKAGES[name])
