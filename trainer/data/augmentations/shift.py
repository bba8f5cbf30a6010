"""Random shift: move a sample by a few pixels, as the paper's augmentation does."""

from __future__ import annotations

import numpy as np

from trainer.config import IGNORE, UserError
from trainer.data.augmentations.base import Augmentation, Sample, Sizes, check_whole
from trainer.data.transforms import MAX_SHIFT
from trainer.data.transforms import shift as shifted

MOST = 4096
"""Pixels."""


class Shift(Augmentation):
    """Move image and label alike by up to `pixels` in either direction on each axis, uniformly.

    What that uncovers has the sample's `fill` in the image and IGNORE in the label.
    """

    def __init__(self, *, pixels: int = MAX_SHIFT) -> None:
        self.pixels = check_whole("pixels", pixels, 1, MOST)

    def __call__(self, sample: Sample, draw: np.random.Generator) -> Sample:
        """The moved sample."""
        across, down = (int(n) for n in draw.integers(-self.pixels, self.pixels, size=2, endpoint=True))
        label = shifted(sample.label, across, down, fill=IGNORE)
        image = shifted(sample.image, across, down, fill=sample.fill)
        return sample._replace(image=image, label=label)

    def sizes(self, given: Sizes) -> Sizes:
        """The same. Raises UserError where a shift could leave nothing of an image."""
        if self.pixels >= min(given.smallest):
            height, width = given.smallest
            raise UserError(
                f"pixels must be below the sides of the smallest image, of {height}x{width}, but got {self.pixels}; "
                "lower it"
            )
        return given
