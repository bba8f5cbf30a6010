"""Build the objects of a run from its TrainConfig, check that a config can be built, and compute its run id."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from trainer.config import IGNORE, DataConfig, TrainConfig, UserError
from trainer.config.blame import blaming, named, plugin_of
from trainer.data import (
    PackedSplit,
    SegDataset,
    check_data,
    check_splits,
    facts_of,
    open_dataset,
    pack_splits,
    silent,
    train_size,
)
from trainer.data.augmenter import try_steps
from trainer.data.batch import Batch
from trainer.data.own_folder.groups import hold_out_groups
from trainer.data.pairing import Split
from trainer.data.stream import Stream, holdout
from trainer.data.transforms import auto_class_weights, quarter_label
from trainer.distill import build_distillers
from trainer.files.run_folder import write_text
from trainer.losses import build_losses
from trainer.models import SegModel
from trainer.models.norm import set_norm_batch
from trainer.models.shapes import output_flaw
from trainer.place import Place
from trainer.training.known_structures import known_cost, structure_file
from trainer.training.networks import build_student, build_teacher, check_weights
from trainer.training.optimiser import check_head
from trainer.training.schedule import check_warmup
from trainer.training.task import Distilled

__all__ = ["Data", "build_distilled", "build_teacher", "check", "open_data"]


class Data(NamedTuple):
    """The data of a run: the data set, its packed splits, and the training samples to train on and to select by."""

    dataset: SegDataset
    train: PackedSplit
    val: PackedSplit
    learn: np.ndarray
    select: np.ndarray
    test: PackedSplit | None = None
    """Where `eval.splits` names it."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the K classes."""
        return self.dataset.classes

    @property
    def fingerprints(self) -> dict[str, str]:
        """The fingerprints of train and val, and of test where it is read, by split."""
        found = {"train": self.train.fingerprint, "val": self.val.fingerprint}
        return found if self.test is None else found | {"test": self.test.fingerprint}

    @property
    def conditions(self) -> dict[str, np.ndarray]:
        """Condition -> indices of its samples in val; empty for a data set without conditions."""
        return self.dataset.conditions(self.val.stems)


def open_data(config: TrainConfig, place: Place, say: Callable[[str], None] = silent) -> Data:
    """Open, check and pack the data; `say` is told how far packing is.

    Raises UserError naming the first wrong file, a disk without room, or a split in which no pixel is labelled.
    """
    with blaming():
        dataset = open_dataset(config.data, place.data_root, place.cache_dir)
        check_splits(config.data.name, dataset.splits, config.eval.splits, "eval.splits")
        native: dict[Split, bool] = {"train": reads_native_labels_of_train(config)}
        for split in config.eval.splits:
            native[split] = True
        splits = pack_splits(dataset, config.data, native, place.cache_dir, say)
    learn, select = _held_out(dataset, splits["train"], config.data.select)
    stream = Stream(splits["train"], config, learn, 0, 1)  # raises UserError when the split is smaller than a batch
    check_warmup(config.optim, stream.steps_per_epoch)
    data = Data(dataset, splits["train"], splits["val"], learn, select, splits.get("test"))
    _check_labelled(data, config)
    for line in pictures_of_train(data):
        say(line)
    return data


def pictures_of_train(data: Data) -> list[str]:
    """A warning for each split with pictures that train has too, pixel by pixel.

    In packs of earlier versions the bytes of the pairs' files are compared, masks included.
    """
    lines = []
    for name, split in (("val", data.val), ("test", data.test)):
        both = [] if split is None else _in_both(split, data.train)
        if split is not None and both:
            stem, other = both[0]
            lines.append(
                f"warning: {len(both)} of {len(split)} pictures of {name} are in train too, as {stem} ({other} in "
                f"train), so that {name} measures what was learnt by heart; `transkd data check` lists them"
            )
    return lines


def _in_both(split: PackedSplit, train: PackedSplit) -> list[tuple[str, str]]:
    """The stems of `split` whose picture or pair of files is in train, each with the stem that it has there."""
    known: dict[bytes | None, str] = {
        digest: stem
        for stem, *digests in zip(train.stems, train.sources, train.pictures, strict=True)
        for digest in digests
        if digest is not None
    }
    return [
        (stem, known[source] if source in known else known[picture])
        for stem, source, picture in zip(split.stems, split.sources, split.pictures, strict=True)
        if source in known or picture in known
    ]


def _held_out(dataset: SegDataset, train: PackedSplit, share: float) -> tuple[np.ndarray, np.ndarray]:
    """The samples of train to learn from and to select by; images of one group stay together."""
    groups = dataset.groups(train.stems) if share else None
    return holdout(len(train), share) if groups is None else hold_out_groups(groups, share)


def reads_native_labels_of_train(config: TrainConfig) -> bool:
    """Whether a run reads labels of train at their own size: to reduce them to a quarter, or to select by them.

    A list of steps reduces the labels that it has moved, at the input's size.
    """
    return _reduces_native(config.data) or config.data.select > 0


def _reduces_native(data: DataConfig) -> bool:
    return data.train_labels == "quarter" and not data.steps


def _check_labelled(data: Data, config: TrainConfig) -> None:
    """Raise UserError where no pixel is labelled of what the run trains on, is validated on or selects by.

    Labels are read as the run reads them, by nearest neighbour, which can leave out all that is labelled; the first
    labelled pixel ends the reading.
    """
    height, width = config.data.size
    sizes = {"input": f"at {height}x{width}", "native": "at its own size", "quarter": f"at {height // 4}x{width // 4}"}
    of_train = "quarter" if _reduces_native(config.data) else "input"
    reads = [("train", data.train, data.learn, of_train, "data.train_labels")]
    for protocol in config.eval.protocols:
        size = "quarter" if protocol == "paper" else "native"
        reads.append(("val", data.val, np.arange(len(data.val)), size, "eval.protocols"))
        if data.test is not None:
            reads.append(("test", data.test, np.arange(len(data.test)), size, "eval.protocols"))
    if len(data.select):
        reads.append(("train", data.train, data.select, reads[1][3], "data.select"))
    for name, split, indices, size, key in reads:
        if not any((_label(split, int(index), size) != IGNORE).any() for index in indices):
            raise UserError(
                f"split {name} of {data.dataset.root} has no labelled pixel in the {len(indices)} labels that {key} "
                f"reads, each {sizes[size]}; correct the labels, which may have other class numbers, or change {key}"
            )


def _label(split: PackedSplit, index: int, size: str) -> np.ndarray:
    if size == "input":
        return split.sample(index)[1]
    native = split.native_label(index)
    return quarter_label(native, split.size) if size == "quarter" else native


def build_distilled(config: TrainConfig, teacher: SegModel | None, data: Data) -> Distilled:
    """The student with its paths and class weights, on the CPU."""
    weights = config.data.class_weights
    if weights is None:
        tensor = None
    elif weights == "auto":
        tensor = torch.from_numpy(np.asarray(auto_class_weights(data.train.class_counts), dtype=np.float32))
    else:
        tensor = torch.tensor(weights, dtype=torch.float32)
    return _assemble(config, teacher, len(data.classes), data.dataset.channels, tensor)


def _assemble(
    config: TrainConfig,
    teacher: SegModel | None,
    classes: int,
    channels: int,
    class_weights: torch.Tensor | None = None,
) -> Distilled:
    if class_weights is not None and len(class_weights) != classes:
        raise UserError(
            f"data.class_weights needs one weight for each of the {classes} classes of {config.data.name} "
            f"but got {len(class_weights)}"
        )
    losses = build_losses(config.loss)
    student = build_student(config, classes, channels)
    paths = {}
    if teacher is not None:
        paths = build_distillers(config.active, student.channels, teacher.channels, config.seed)
    distilled = Distilled(student, paths, classes, class_weights, losses)
    set_norm_batch(distilled, config.optim.effective_norm_batch)
    return distilled


def check(config: TrainConfig, cache: Path) -> dict[str, float]:
    """Build a config's networks on the meta device, run one forward pass, and return the deployed student's cost.

    Cached on disk by structure, so a study with a thousand runs builds each structure once. Raises UserError.
    """
    if (known := known_cost(config, cache)) is not None:
        return known
    with blaming():
        cost = _cost(config)
    file = structure_file(config, cache)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(cost))
    return cost


def _cost(config: TrainConfig) -> dict[str, float]:
    """Build a config's networks on the meta device and run one forward pass: the deployed student's cost."""
    check_data(config.data)
    facts = facts_of(config.data)
    classes, channels = len(facts.classes), facts.channels
    check_splits(config.data.name, facts.splits, config.eval.splits, "eval.splits")
    check_weights(config, classes, channels)
    weights = config.data.class_weights
    with torch.device("meta"):
        teacher = build_teacher(config, None, classes, channels)
        meta_init = config.model_copy(update={"student": config.student.model_copy(update={"init": "scratch"})})
        declared = torch.ones(len(weights)) if isinstance(weights, tuple) else None
        distilled = _assemble(meta_init, teacher, classes, channels, declared)
        check_head(distilled, config.optim)
        height, width = train_size(config.data)
        batch = Batch(
            torch.zeros(config.optim.effective_norm_batch, channels, height, width),
            torch.zeros(config.optim.effective_norm_batch, height, width, dtype=torch.int64),
            torch.zeros(config.optim.effective_norm_batch, dtype=torch.int64),
        )
        output = teacher(batch.image, None, distilled.teacher_needs) if teacher else None
        if teacher is not None:
            _refuse(output_flaw(output, teacher, batch.image, classes, distilled.teacher_needs), "teacher", teacher)
        given = distilled.student(batch.image, batch.keys)
        _refuse(output_flaw(given, distilled.student, batch.image, classes), "student", distilled.student)
        distilled.losses_of(given, batch, output)
    try_steps(config.data, classes, channels)
    from trainer.measure.complexity import deployed

    return deployed(config.student, classes, config.data.size, channels)


def _refuse(flaw: str, who: str, model: SegModel) -> None:
    if flaw:
        remedy = "correct its code" if plugin_of(model) else f"change data.size, or choose another {who}"
        raise UserError(f"{named(model)}{who}: {flaw}; {remedy}")
