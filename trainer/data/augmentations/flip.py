"""Random flip: mirror a sample, left to right."""

from __future__ import annotations

import numpy as np

from trainer.data.augmentations.base import Augmentation, Sample, check_between


class Flip(Augmentation):
    """Mirror image and label with `probability`."""

    def __init__(self, *, probability: float = 0.5) -> None:
        self.probability = check_between("probability", probability, 0.0, 1.0)

    def __call__(self, sample: Sample, draw: np.random.Generator) -> Sample:
        """The sample, or its mirror image."""
        if draw.random() >= self.probability:
            return sample
        return sample._replace(image=sample.image[:, ::-1], label=sample.label[:, ::-1])
