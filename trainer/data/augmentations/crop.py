"""Random crop: a window of a fixed size, at a random place where no class has too large a share of it.

Source: mmsegmentation's RandomCrop (mmseg/datasets/transforms/transforms.py) with `cat_max_ratio`, and its padding of
samples that are smaller than the window, on the right and at the bottom (mmseg/utils/misc.py: stack_batch).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.config import IGNORE, UserError, message_of
from trainer.config.data import check_sides
from trainer.data.augmentations.base import Augmentation, Sample, Size, Sizes, check_between

ATTEMPTS = 10
"""Windows that are tried after the first; the last of them is taken unseen, as in the source."""


class Crop(Augmentation):
    """Cut out `size` (height, width). Where the sample is smaller, it is padded with its `fill` and IGNORE.

    With `cat_max_ratio` below 1 another window is drawn, up to ten times, while one class has that share of the
    labelled pixels, or more, or is the only one.
    """

    def __init__(self, *, size: Sequence[int], cat_max_ratio: float = 1.0) -> None:
        self.size = _check_size(size)
        self.cat_max_ratio = check_between("cat_max_ratio", cat_max_ratio, 0.01, 1.0)

    def __call__(self, sample: Sample, draw: np.random.Generator) -> Sample:
        """The window, of `size`."""
        top, left = self._place(sample.label, draw)
        window = (slice(top, top + self.size[0]), slice(left, left + self.size[1]))
        image, label = sample.image[window], sample.label[window]
        if label.shape == self.size:
            return sample._replace(image=image, label=label)
        height, width = label.shape
        padded = np.empty((*self.size, image.shape[2]), np.uint8)
        padded[:] = sample.fill
        padded[:height, :width] = image
        labels = np.full(self.size, IGNORE, np.uint8)
        labels[:height, :width] = label
        return sample._replace(image=padded, label=labels)

    def _place(self, label: np.ndarray, draw: np.random.Generator) -> Size:
        """(top, left) of a window."""
        margins = [max(side - own, 0) for side, own in zip(label.shape, self.size, strict=True)]
        place = _drawn(margins, draw)
        for _ in range(ATTEMPTS if self.cat_max_ratio < 1 else 0):
            top, left = place
            counts = np.bincount(label[top : top + self.size[0], left : left + self.size[1]].ravel(), minlength=256)
            counts = np.delete(counts, IGNORE)
            if np.count_nonzero(counts) > 1 and counts.max() / counts.sum() < self.cat_max_ratio:
                break
            place = _drawn(margins, draw)
        return place

    def sizes(self, given: Sizes) -> Sizes:
        """`size`. Raises UserError where every sample is smaller, so that every crop would be padded."""
        for side, own, most in zip(("height", "width"), self.size, given.largest, strict=True):
            if own > most:
                raise UserError(
                    f"size must fit into the largest image before it, of {given.largest[0]}x{given.largest[1]}, but "
                    f"its {side} is {own}; lower it, or raise data.size or the range of scale"
                )
        return Sizes(self.size, self.size)


def _drawn(margins: list[int], draw: np.random.Generator) -> Size:
    top, left = (int(draw.integers(0, margin, endpoint=True)) for margin in margins)
    return top, left


def _check_size(given: Sequence[int]) -> Size:
    whole = isinstance(given, Sequence) and all(isinstance(side, int) and not isinstance(side, bool) for side in given)
    if not whole or len(given) != 2:
        raise UserError(f"size must be [height, width] in pixels but got {given!r}; write two whole numbers")
    try:
        check_sides((given[0], given[1]))
    except ValueError as error:
        raise UserError(f"size: {message_of(error)}") from None
    return given[0], given[1]
