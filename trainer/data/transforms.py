"""Augmentation, quarter-size labels and class weights: pure functions of arrays and a random generator."""

from __future__ import annotations

import functools
from typing import Literal

import numpy as np
from PIL import Image

from trainer.config import IGNORE

Augmentation = Literal["standard", "reference", "none"]

MAX_SHIFT = 2
"""Pixels, in either direction and on either axis."""


def augment(
    image: np.ndarray, label: np.ndarray, rng: np.random.Generator, kind: Augmentation, quarter: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Flip (half of the time) and shift image (H, W, 3) and label, uint8; if `quarter`, label to (H/4, W/4).

    The label is (H, W), or of any size if `quarter`: it is reduced in one step, as in the published code, because
    nearest neighbour at the input size first selects other pixels. `standard` shifts both alike. `reference` follows
    the published code, which shifts the reduced label by the same number of its own, four times larger, pixels.
    """
    flip = bool(rng.random() < 0.5)
    across, down = (int(shift) for shift in rng.integers(-MAX_SHIFT, MAX_SHIFT, size=2, endpoint=True))
    size = (image.shape[0], image.shape[1])
    if kind == "standard":
        if quarter:
            moved = shift(_flipped(image, flip), across, down, fill=0)
            return moved, quarter_label(_flipped(label, flip), size, across, down)
        return flip_and_shift(image, label, flip, across, down)
    if quarter:
        label = quarter_label(label, size)
    if kind == "reference":
        return flip_and_shift_as_reference(image, label, flip, across, down)
    return image, label


def flip_and_shift(
    image: np.ndarray, label: np.ndarray, flip: bool, across: int, down: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mirror both if `flip`, then shift them right by `across` and down by `down`, filled with 0 and IGNORE."""
    image, label = _flipped(image, flip), _flipped(label, flip)
    return shift(image, across, down, fill=0), shift(label, across, down, fill=IGNORE)


def flip_and_shift_as_reference(
    image: np.ndarray, label: np.ndarray, flip: bool, across: int, down: int
) -> tuple[np.ndarray, np.ndarray]:
    """Flip and shift as the published code does; image and label may differ in size.

    It pads on the left and top, and crops on the right and bottom. A negative shift crops first and is "padded" by a
    crop beyond the border, which writes 0: class road in Cityscapes.
    """
    image, label = _flipped(image, flip), _flipped(label, flip)
    moved = shift(label, max(across, 0), max(down, 0), fill=IGNORE)
    return shift(image, across, down, fill=0), shift(moved, min(across, 0), min(down, 0), fill=0)


def shift(array: np.ndarray, across: int, down: int, fill: int | np.ndarray) -> np.ndarray:
    """A copy of (H, W, ...) shifted right by `across` and down by `down`; uncovered pixels get `fill`."""
    height, width = array.shape[:2]
    moved = np.full_like(array, fill)
    to = (slice(max(down, 0), height + min(down, 0)), slice(max(across, 0), width + min(across, 0)))
    of = (slice(max(-down, 0), height + min(-down, 0)), slice(max(-across, 0), width + min(-across, 0)))
    moved[to] = array[of]
    return moved


def quarter_label(label: np.ndarray, size: tuple[int, int], across: int = 0, down: int = 0) -> np.ndarray:
    """A label (h, w) of any size at a quarter of the input size (H, W): (H/4, W/4), by nearest neighbour.

    It is shifted before by `across` and `down` pixels of the input; what that uncovers is IGNORE.
    """
    rows = _nearest(label.shape[0], size[0] // 4, down)
    columns = _nearest(label.shape[1], size[1] // 4, across)
    reduced = label[rows][:, columns]
    reduced[rows < 0] = IGNORE
    reduced[:, columns < 0] = IGNORE
    return reduced


@functools.lru_cache(maxsize=4096)
def _nearest(length: int, quarter: int, shift: int) -> np.ndarray:
    """(quarter,) the pixel of `length` that each pixel of a quarter of the input shows, -1 beyond the border.

    Pillow itself chooses it, so that its rounding is that of the published code.
    """
    pixels = Image.fromarray(np.arange(length, dtype=np.int32)[None])
    step = length / quarter
    affine = (step, 0.0, -shift * step / 4, 0.0, 1.0, 0.0)
    return np.asarray(
        pixels.transform((quarter, 1), Image.Transform.AFFINE, affine, Image.Resampling.NEAREST, fillcolor=-1)
    )[0]


def auto_class_weights(counts: np.ndarray) -> np.ndarray:
    """Cross-entropy weights (K,) float32 = 1 / ln(1.10 + p) from pixel counts (K,), p the share of labelled pixels.

    The rule of ENet (Paszke et al., arXiv 1606.02147, section 5.1) with 1.10, the constant behind the reference's
    weights. A class that never occurs gets the largest weight, that of p = 0 (10.5); no pixel ever applies it.
    """
    share = counts / max(int(counts.sum()), 1)
    return (1.0 / np.log(1.10 + share)).astype(np.float32)


def _flipped(array: np.ndarray, flip: bool) -> np.ndarray:
    return array[:, ::-1] if flip else array
