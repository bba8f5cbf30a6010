"""Cityscapes in its published layout, 19 classes, from `labelTrainIds` or straight from `labelIds` files."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from trainer.data.base import Official, SegDataset, label_table
from trainer.data.images import SUFFIXES
from trainer.data.pairing import Found, Split, by_suffix, folder

LAYOUT = (
    "leftImg8bit/{train,val}/CITY/STEM_leftImg8bit.png with "
    "gtFine/{train,val}/CITY/STEM_gtFine_labelTrainIds.png or _labelIds.png"
)


class CityscapesClass(NamedTuple):
    """A trained class: its name, its value in `labelIds` files, and its published colour."""

    name: str
    label_id: int
    colour: tuple[int, int, int]


# Cordts et al., The Cityscapes Dataset (CVPR 2016), and labels.py of its scripts. The position is the train id.
CLASSES = (
    CityscapesClass("road", 7, (128, 64, 128)),
    CityscapesClass("sidewalk", 8, (244, 35, 232)),
    CityscapesClass("building", 11, (70, 70, 70)),
    CityscapesClass("wall", 12, (102, 102, 156)),
    CityscapesClass("fence", 13, (190, 153, 153)),
    CityscapesClass("pole", 17, (153, 153, 153)),
    CityscapesClass("traffic light", 19, (250, 170, 30)),
    CityscapesClass("traffic sign", 20, (220, 220, 0)),
    CityscapesClass("vegetation", 21, (107, 142, 35)),
    CityscapesClass("terrain", 22, (152, 251, 152)),
    CityscapesClass("sky", 23, (70, 130, 180)),
    CityscapesClass("person", 24, (220, 20, 60)),
    CityscapesClass("rider", 25, (255, 0, 0)),
    CityscapesClass("car", 26, (0, 0, 142)),
    CityscapesClass("truck", 27, (0, 0, 70)),
    CityscapesClass("bus", 28, (0, 60, 100)),
    CityscapesClass("train", 31, (0, 80, 100)),
    CityscapesClass("motorcycle", 32, (0, 0, 230)),
    CityscapesClass("bicycle", 33, (119, 11, 32)),
)
LABEL_IDS = {entry.name: entry.label_id for entry in CLASSES}

_FROM_TRAIN_IDS = label_table({i: i for i in range(len(CLASSES))}, ignored=())
_FROM_LABEL_IDS = label_table(
    {entry.label_id: i for i, entry in enumerate(CLASSES)},
    ignored=tuple(sorted(set(range(34)) - set(LABEL_IDS.values()))),
)


class Cityscapes(SegDataset):
    """Cityscapes, or any data in its layout. Where a stem has both label files, `labelTrainIds` is read."""

    classes = tuple(entry.name for entry in CLASSES)
    palette = tuple(entry.colour for entry in CLASSES)

    official = Official(2975, 500, (1024, 2048))

    def find(self, split: Split) -> Found:
        """Files by stem, for example `aachen/aachen_000000_000019`."""
        assert self.root is not None
        images = folder(self.root / "leftImg8bit" / split, LAYOUT)
        labels = folder(self.root / "gtFine" / split, LAYOUT)
        return Found(
            by_suffix(images, "_leftImg8bit", *SUFFIXES),
            by_suffix(labels, "_gtFine_labelIds", ".png") | by_suffix(labels, "_gtFine_labelTrainIds", ".png"),
            images,
        )

    def paths(self, split: Split, index: int) -> tuple[str, str]:
        """Paths in a city named `synthetic`."""
        stem = f"{split}/synthetic/synthetic_{index:06d}_000019"
        return f"leftImg8bit/{stem}_leftImg8bit.png", f"gtFine/{stem}_gtFine_labelTrainIds.png"

    def table(self, path: Path) -> np.ndarray:
        """The mapping for train ids or for label ids, chosen by the file's name."""
        return _FROM_TRAIN_IDS if path.stem.endswith("_labelTrainIds") else _FROM_LABEL_IDS
