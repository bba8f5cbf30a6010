"""Random blur: smooth the image with a Gaussian of random width.

Source of the defaults: Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020,
appendix A: half of the time, with a standard deviation uniform in [0.1, 2.0].
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.data.augmentations.base import Augmentation, Sample, check_between, check_range

REACH = 3.0
"""Standard deviations after which the Gaussian is cut off."""


class Blur(Augmentation):
    """Convolve the image with a Gaussian, with `probability`; its standard deviation in pixels is uniform in `sigma`.

    The border repeats its pixels. The label stays as it is.
    """

    def __init__(self, *, sigma: Sequence[float] = (0.1, 2.0), probability: float = 0.5) -> None:
        self.least, self.most = check_range("sigma", sigma, 0.01, 50.0)
        self.probability = check_between("probability", probability, 0.0, 1.0)

    def __call__(self, sample: Sample, draw: np.random.Generator) -> Sample:
        """The sample, or the same with a smooth image."""
        chosen, sigma = draw.random() < self.probability, self.least + (self.most - self.least) * draw.random()
        return sample._replace(image=smooth(sample.image, sigma)) if chosen else sample


def smooth(image: np.ndarray, sigma: float) -> np.ndarray:
    """image (H, W, C) uint8, convolved along both axes in float32 and rounded."""
    reach = int(np.ceil(REACH * sigma))
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2).astype(np.float32)
    taps /= taps.sum()
    found = image.astype(np.float32)
    for axis in (0, 1):
        widths = [(reach, reach) if axis == own else (0, 0) for own in range(3)]
        padded = np.pad(found, widths, mode="edge")
        length = image.shape[axis]
        found = np.zeros_like(found)
        for k, tap in enumerate(taps):
            found += tap * (padded[k : k + length] if axis == 0 else padded[:, k : k + length])
    return np.rint(found).clip(0, 255).astype(np.uint8)
