"""The metrics of a trained student on a split, measured as its run measured them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from trainer.data import PackedSplit, SegDataset, open_dataset, pack, silent
from trainer.data.pairing import Split
from trainer.deploy.open import Student, Wanted, open_student
from trainer.training.evaluation.evaluate import evaluate


def measure(
    student: Student,
    dataset: SegDataset,
    cache: Path,
    split: Split = "val",
    protocols: Sequence[str] | None = None,
    batch: int = 8,
    say: Callable[[str], None] = silent,
) -> tuple[dict[str, float], PackedSplit]:
    """The metrics of a student (`<split>/...`, in percent), of all classes and conditions, and the split.

    `protocols`: default, those of its config. `say` is told how far packing is. Raises UserError where the data cannot
    be read.
    """
    packed = pack(dataset, student.config.data, split, cache, say=say)
    metrics = evaluate(
        student.model,
        packed,
        dataset.classes,
        student.config.data,
        protocols or student.config.eval.protocols,
        conditions=dataset.conditions(packed.stems),
        prefix=split,
        batch=batch,
        autocast=student.autocast,
        how=student.config.eval,
    )
    return metrics, packed


def remeasure(
    checkpoint: Path, root: Path | None, cache: Path, splits: Sequence[Split] = ("val",)
) -> tuple[dict[str, float], dict[str, str]]:
    """The metrics (`val/...`, in percent) of a run's checkpoint on splits, and the fingerprint of each one's images.

    `root` is the folder of the data set. Raises UserError where the checkpoint or the data cannot be read.
    """
    student = open_student(checkpoint, Wanted(), "auto")
    dataset = open_dataset(student.config.data, root, cache)
    metrics: dict[str, float] = {}
    fingerprints: dict[str, str] = {}
    for split in splits:
        found, packed = measure(student, dataset, cache, split)
        metrics |= found
        fingerprints[split] = packed.fingerprint
    return metrics, fingerprints
