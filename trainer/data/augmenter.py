"""Augmenter: the training samples that a data section makes of packed ones, as a function of (seed, epoch, sample)."""

from __future__ import annotations

import numpy as np

from trainer import rng
from trainer.config import DataConfig
from trainer.data.augmentations import Sample, build_steps, train_size
from trainer.data.packs.packed import PackedSplit
from trainer.data.transforms import augment, quarter_label


class Augmenter:
    """Applies `data.augment`: the paper's augmentation, or the steps of a list in their order."""

    def __init__(self, data: DataConfig, seed: int, fill: np.ndarray) -> None:
        """`fill` (C,) uint8 is the colour of what steps uncover. Raises UserError for steps that cannot be applied."""
        self.data, self.seed, self.fill = data, seed, fill
        self.steps = build_steps(data)
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
        found = Sample(image, label, self.fill)
        for name, step in self.steps.items():
            found = step(found, rng.generator(self.seed, f"augment {name}", epoch, sample))
        return found.image, quarter_label(found.label, self.size) if self.quarter else found.label
