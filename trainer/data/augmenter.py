"""Augmenter: the training samples that a data section makes of packed ones, as a function of (seed, epoch, sample)."""

from __future__ import annotations

import numpy as np

from trainer import rng
from trainer.config import IGNORE, DataConfig, UserError
from trainer.config.blame import blaming, named, plugin_of
from trainer.data.augmentations import Sample, build_steps, sizes_after, train_size
from trainer.data.augmentations.base import flaw_of
from trainer.data.packs.packed import PackedSplit
from trainer.data.transforms import augment, quarter_label

TRIED = 8
"""Samples to which `try_steps` applies the steps: half of them are spared by a step of probability 0.5."""


class Augmenter:
    """Applies `data.augment`: the paper's augmentation, or the steps of a list in their order."""

    def __init__(self, data: DataConfig, seed: int, fill: np.ndarray) -> None:
        """`fill` (C,) uint8 is the colour of what steps uncover. Raises UserError for steps that cannot be applied."""
        self.data, self.seed, self.fill = data, seed, fill
        self.steps = build_steps(data)
        self.sizes = sizes_after(data, self.steps)
        self.size = train_size(data)
        """(H, W) of the samples."""

    @property
    def quarter(self) -> bool:
        """Whether labels have a quarter of the image's height and width."""
        return self.data.train_labels == "quarter"

    def __call__(self, packed: PackedSplit, sample: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, C) and label (H, W), or (H/4, W/4) where labels are quarter labels, both uint8.

        The paper's augmentation reduces a quarter label from its own size; after a list of steps, it is reduced from
        the label at the input's size.
        """
        image, label = packed.sample(sample)
        if isinstance(self.data.augment, str):
            label = packed.native_label(sample) if self.quarter else label
            draw = rng.generator(self.seed, "augment", epoch, sample)
            return augment(image, label, draw, self.data.augment, self.quarter)
        found = self.apply(Sample(image, label, self.fill), sample, epoch)
        return found.image, quarter_label(found.label, self.size) if self.quarter else found.label

    def apply(self, found: Sample, sample: int, epoch: int) -> Sample:
        """A sample after the steps. Raises UserError where a step returned what it must not: it may do so at any draw,
        and the check costs microseconds of the milliseconds that a step takes."""
        for (name, step), sizes in zip(self.steps.items(), self.sizes, strict=True):
            given = found
            found = step(given, rng.generator(self.seed, f"augment {name}", epoch, sample))
            if flaw := flaw_of(found, given, sizes):
                raise UserError(f"{named(step)}data.augment.{name}: {flaw}")
        return found


def try_steps(data: DataConfig, classes: int, channels: int) -> None:
    """Apply the steps of a data section to made-up samples, where one is of a plugin. Raises UserError for what a run
    would fail of, after it has written its first files."""
    augmenter = Augmenter(data, 0, np.zeros(channels, np.uint8))
    if not any(map(plugin_of, augmenter.steps.values())):
        return
    for number in range(TRIED):
        draw = rng.generator("made-up sample", number)
        image = draw.integers(0, 256, (*data.size, channels), dtype=np.uint8)
        label = draw.integers(0, classes, data.size, dtype=np.uint8)
        with blaming():
            found = augmenter.apply(Sample(image, label, augmenter.fill), number, 0)
        if strange := set(np.unique(found.label).tolist()) - {*range(classes), IGNORE}:
            raise UserError(
                f"data.augment: after {', '.join(augmenter.steps)} a label holds {min(strange)}, which is no class; "
                "move labels without mixing them"
            )
