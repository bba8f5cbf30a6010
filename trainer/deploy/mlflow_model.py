"""A trained student as a model of MLflow's `python_function` flavour: MLflow imports this file to load one.

It imports no MLflow: `student_folder` writes what a model holds, and `_load_pyfunc` is the name that MLflow calls.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from trainer.config import UserError, parse, read_yaml
from trainer.data import facts_of
from trainer.data.packs.packing import resize_image
from trainer.deploy.open import Student, Wanted, open_student
from trainer.deploy.predict import label_images
from trainer.files import checkpoint
from trainer.files.run_folder import LAST
from trainer.plugins.load import add

BATCH = 4
"""Images in one forward pass."""
STUDENT = "student."
"""Prefix of the student's entries in last.pt, which also holds the distillers."""


class Predictor:
    """Labels images with one student."""

    def __init__(self, student: Student) -> None:
        self.student = student

    def predict(self, images: Any) -> np.ndarray:
        """Images (B, H, W, C) uint8, by default RGB -> class indices (B, H, W) uint8, as of `predict --ids train`.

        Raises UserError for any other array.
        """
        images = np.asarray(images)
        channels = self.student.dataset.channels
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != channels or 0 in images.shape:
            raise UserError(
                f"images must be uint8 of shape (B, H, W, {channels}) but got {images.dtype} of {images.shape}"
            )
        size = self.student.config.data.size
        labels: list[np.ndarray] = []
        for start in range(0, len(images), BATCH):
            batch = list(images[start : start + BATCH])
            labels += label_images(self.student, batch, [resize_image(image, size) for image in batch])
        return np.stack(labels)


def _load_pyfunc(path: str) -> Predictor:
    """The model in a folder that `student_folder` wrote, on a GPU where there is one."""
    (file,) = Path(path).glob("*.pt")
    return Predictor(open_student(file, Wanted(), "auto"))


def student_folder(run: Path, name: str, out: Path) -> tuple[str, ...]:
    """Write into the new folder `out` the student of a run's checkpoint `name`, last.pt or best.pt, and its config.

    best.pt is copied. Of last.pt the distillers and the optimiser are left out, so that the file has the form of
    best.pt. Returns the names of the classes. Raises UserError for a checkpoint or config that cannot be read.
    """
    config = parse(read_yaml(run / "config.yaml"), str(run / "config.yaml"))
    add(config.used_plugins)
    state = checkpoint.load(run / name)
    out.mkdir()
    shutil.copy(run / "config.yaml", out)
    if name == LAST:
        checkpoint.save(out / name, _student_alone(run / name, state))
    else:
        shutil.copy(run / name, out)
    return facts_of(config.data).classes


def _student_alone(path: Path, state: dict[str, Any]) -> dict[str, Any]:
    if not state.get("history") or not isinstance(state.get("model"), dict):
        raise UserError(f"{path} is not the last checkpoint of a run; it has no epochs")
    student = {k.removeprefix(STUDENT): tensor for k, tensor in state["model"].items() if k.startswith(STUDENT)}
    last = checkpoint.metrics_of_weights(state)
    measured: dict[str, Any] = {metric: last[metric] for metric in ("epoch", "val/miou") if metric in last}
    return {"model": student, **({"data": state["data"]} if "data" in state else {}), **measured}
