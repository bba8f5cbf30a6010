"""Photometric distortion: random brightness, contrast, saturation and hue, each half of the time.

Source: mmsegmentation's PhotoMetricDistortion (mmseg/datasets/transforms/transforms.py), after Liu et al., SSD: Single
Shot MultiBox Detector, ECCV 2016. There hue is counted in OpenCV's 180 steps, so that its 18 are 36 degrees here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from trainer.data.augmentations.base import Augmentation, Sample, check_between, check_range

VALUES = np.arange(256, dtype=np.float32)


class Photometric(Augmentation):
    """Distort the colours of the image; the label stays as it is.

    Options. `brightness`: the most that is added to or subtracted from every value, of 255. `contrast`, `saturation`:
    ranges of factors. `hue`: the largest rotation in degrees. The order is brightness, contrast, saturation, hue; half
    of the time contrast comes last. Saturation and hue are of images with three channels, red, green and blue.
    """

    def __init__(
        self,
        *,
        brightness: float = 32,
        contrast: Sequence[float] = (0.5, 1.5),
        saturation: Sequence[float] = (0.5, 1.5),
        hue: float = 36,
    ) -> None:
        self.brightness = check_between("brightness", brightness, 0, 255)
        self.contrast = check_range("contrast", contrast, 0.0, 10.0)
        self.saturation = check_range("saturation", saturation, 0.0, 10.0)
        self.hue = check_between("hue", hue, 0, 180)

    def __call__(self, sample: Sample, draw: np.random.Generator) -> Sample:
        """The sample with a distorted image."""
        on = draw.random(5) < 0.5
        added = draw.uniform(-self.brightness, self.brightness) if on[0] else 0.0
        factor = draw.uniform(*self.contrast) if on[1] else 1.0
        saturation = draw.uniform(*self.saturation) if on[2] else 1.0
        hue = draw.uniform(-self.hue, self.hue) if on[3] else 0.0
        first, last = (factor, 1.0) if on[4] else (1.0, factor)
        image = linear(linear(VALUES.astype(np.uint8), 1.0, added), first, 0.0)[sample.image]
        if image.shape[2] == 3 and (on[2] or on[3]):
            image = recoloured(image, saturation, hue)
        return sample._replace(image=linear(VALUES.astype(np.uint8), last, 0.0)[image] if last != 1.0 else image)


def linear(values: np.ndarray, factor: float, added: float) -> np.ndarray:
    """Values uint8 times a factor, plus a number, cut to 0..255 and rounded down, as in the source."""
    return np.clip(values.astype(np.float32) * np.float32(factor) + np.float32(added), 0, 255).astype(np.uint8)


def recoloured(image: np.ndarray, saturation: float, degrees: float) -> np.ndarray:
    """RGB (H, W, 3) uint8 with its saturation times a factor and its hue rotated, in the HSV space of 8 bits."""
    hue, colour, value = Image.fromarray(image).convert("HSV").split()
    turned = (VALUES + np.rint(degrees * 256 / 360)) % 256
    channels = (hue.point(turned.astype(int).tolist()), colour.point(linear(VALUES, saturation, 0.0).tolist()), value)
    return np.asarray(Image.merge("HSV", channels).convert("RGB"))
