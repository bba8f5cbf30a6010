"""Augmentation: the contract of one step, and the checks of its options."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from trainer.config import UserError

Size = tuple[int, int]
"""(height, width) in pixels."""


class Sample(NamedTuple):
    """A training image with its label, both of one size."""

    image: np.ndarray  # (H, W, C) uint8
    label: np.ndarray  # (H, W) uint8: classes, or IGNORE
    fill: np.ndarray  # (C,) uint8: the colour of pixels that no image covers, which normalisation takes near 0


class Sizes(NamedTuple):
    """The bounds of the sizes that a sample may have between two steps."""

    smallest: Size
    largest: Size


class Augmentation:
    """One step. The constructor takes the step's options by keyword and raises UserError for a value that is not valid.

    A step changes no array that it is given. It draws all its random numbers from `draw`, which belongs to (seed, step,
    epoch, sample), so that the other steps draw the same numbers whether this one is there or not.
    """

    def __call__(self, sample: Sample, draw: np.random.Generator) -> Sample:
        """The augmented sample."""
        raise NotImplementedError

    def sizes(self, given: Sizes) -> Sizes:
        """The sizes of samples after this step. Raises UserError where it cannot take samples of the sizes `given`."""
        return given


def flaw_of(found: Any, given: Sample, sizes: Sizes) -> str:
    """What is wrong with what a step made of a sample, "" where nothing is; `sizes` are those after the step."""
    if not isinstance(found, Sample):
        return f"it must return a Sample, but returned {type(found).__name__}; end with `return sample._replace(...)`"
    for array in (found.image, found.label, found.fill):
        if not isinstance(array, np.ndarray) or array.dtype != np.uint8:
            kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            return f"image and label must stay uint8, but one is {kind}; round and clip them"
    image, label = found.image.shape, found.label.shape
    if len(label) != 2 or image != (*label, given.image.shape[2]) or found.fill.shape != given.fill.shape:
        return f"the image has shape {image}, but its label {label}; change both alike, and keep the channels"
    if not all(low <= side <= high for low, side, high in zip(sizes.smallest, label, sizes.largest, strict=True)):
        return f"an image became {label[0]}x{label[1]}, which sizes() does not allow; let it say all sizes"
    return ""


def check_range(name: str, given: Any, low: float, high: float) -> tuple[float, float]:
    """(least, most). Raises UserError unless `given` is [least, most] with low <= least <= most <= high."""
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) != 2 or not all(map(_is_number, given)):
        raise UserError(f"{name} must be [least, most] but got {given!r}; write two numbers")
    least, most = map(float, given)
    if least > most:
        raise UserError(f"{name} must be [least, most], but {given!r} is empty; exchange the two")
    if not low <= least <= most <= high:
        raise UserError(f"{name} must lie between {low:g} and {high:g} but got {given!r}")
    return least, most


def check_between(name: str, given: Any, low: float, high: float) -> float:
    """A float. Raises UserError unless `given` is a number with low <= given <= high."""
    if not _is_number(given) or not low <= given <= high:
        raise UserError(f"{name} must be a number from {low:g} to {high:g} but got {given!r}")
    return float(given)


def check_whole(name: str, given: Any, low: int, high: int) -> int:
    """An int. Raises UserError unless `given` is a whole number with low <= given <= high."""
    if not isinstance(given, int) or isinstance(given, bool) or not low <= given <= high:
        raise UserError(f"{name} must be a whole number from {low} to {high} but got {given!r}")
    return given


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
