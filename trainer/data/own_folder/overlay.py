"""Overlays: a few samples of a split, each beside its mask, to see whether images and masks fit."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

from trainer.config import IGNORE
from trainer.data.arrays import as_rgb
from trainer.data.base import SegDataset
from trainer.data.pairing import Pair, Split

LONGEST = 480
"""The longer side of a picture on the page, in pixels."""


class Sample(NamedTuple):
    """A pair to look at."""

    pair: Pair
    image: Image.Image
    overlay: Image.Image  # half image, half mask; what is ignored stays grey
    size: tuple[int, int]  # (H, W) of the files
    classes: list[str]  # those that occur, most pixels first


def samples(dataset: SegDataset, split: Split, count: int) -> list[Sample]:
    """`count` pairs spread evenly over a split. Raises the data set's UserError for a wrong file."""
    pairs = dataset.pairs(split)
    chosen = np.unique(np.linspace(0, len(pairs) - 1, count).round().astype(int))
    return [_sample(dataset, pairs[at]) for at in chosen]


def _sample(dataset: SegDataset, pair: Pair) -> Sample:
    image, label = dataset.read(pair)
    rgb = as_rgb(image)
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(dataset.palette)] = dataset.palette
    grey = np.repeat(rgb.mean(axis=2, keepdims=True), 3, axis=2)
    mixed = np.where((label == IGNORE)[..., None], grey / 2, rgb * 0.4 + colours[label] * 0.6)
    pixels = np.bincount(label[label != IGNORE], minlength=len(dataset.classes))
    names = [dataset.classes[at] for at in np.argsort(-pixels, kind="stable") if pixels[at]]
    return Sample(pair, _small(rgb), _small(np.rint(mixed).astype(np.uint8)), label.shape, names)


def _small(picture: np.ndarray) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(picture))
    image.thumbnail((LONGEST, LONGEST))
    return image
