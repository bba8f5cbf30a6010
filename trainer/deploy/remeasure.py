"""Evaluate a checkpoint again, as its run did."""

from __future__ import annotations

from pathlib import Path

from trainer.data import open_dataset, pack
from trainer.deploy.open import Wanted, open_student
from trainer.training.evaluate import evaluate


def remeasure(checkpoint: Path, root: Path | None, cache: Path) -> tuple[dict[str, float], str]:
    """The validation metrics (`val/...`, in percent) of a run's checkpoint, and the fingerprint of the images.

    `root` is the folder of the data set. Raises UserError where the checkpoint or the data cannot be read.
    """
    student = open_student(checkpoint, Wanted(), "auto")
    data = student.config.data
    dataset = open_dataset(data, root, cache)
    packed = pack(dataset, data, "val", cache)
    metrics = evaluate(
        student.model,
        packed,
        dataset.classes,
        data,
        student.config.eval.protocols,
        conditions=dataset.conditions(packed.stems),
        autocast=student.autocast,
    )
    return metrics, packed.fingerprint
