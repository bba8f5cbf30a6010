"""Random scale: resize a sample by a random factor, with its aspect ratio kept.

Source: mmsegmentation's RandomResize with `ratio_range` (mmseg/configs, mmcv/transforms/processing.py): the factor is
uniform. The image that is resized is the packed one, at `data.size`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.config import UserError
from trainer.data.augmentations.base import Augmentation, Sample, Size, Sizes, check_range
from trainer.data.packs.packing import resize_image, resize_label

SMALLEST, LARGEST = 0.05, 16.0
"""Of a factor."""


class Scale(Augmentation):
    """Resize image (antialiased bilinear) and label (nearest neighbour) by a factor that is uniform in `range`.

    Sizes then differ, so a later step must make them equal: crop.
    """

    def __init__(self, *, range: Sequence[float] = (0.5, 2.0)) -> None:
        self.least, self.most = check_range("range", range, SMALLEST, LARGEST)

    def __call__(self, sample: Sample, draw: np.random.Generator) -> Sample:
        """The resized sample."""
        size = scaled(sample.label.shape, self.least + (self.most - self.least) * draw.random())
        if size == sample.label.shape:
            return sample
        return sample._replace(image=resize_image(sample.image, size), label=resize_label(sample.label, size))

    def sizes(self, given: Sizes) -> Sizes:
        """Each bound times the factor that is nearest to it."""
        found = Sizes(scaled(given.smallest, self.least), scaled(given.largest, self.most))
        if min(found.smallest) < 1:
            raise UserError(f"range {[self.least, self.most]} leaves nothing of an image of {given.smallest}; raise it")
        return found


def scaled(size: tuple[int, ...], factor: float) -> Size:
    """(height, width) times a factor, rounded half up."""
    height, width = (int(side * factor + 0.5) for side in size)
    return height, width
