"""CamVid in 11 classes: `images/{train,val}/STEM.jpg` with `labels/{train,val}/STEM.png`, index 11 ignored."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from trainer.data.base import Pair, SegDataset, Split, folder, label_table, paired

LAYOUT = "images/{train,val}/STEM.jpg (or .png) with labels/{train,val}/STEM.png"

# Brostow et al. (ECCV 2008); the 11 classes and their colours are those of the SegNet tutorial.
CLASSES: dict[str, tuple[int, int, int]] = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "sidewalk": (60, 40, 222),
    "tree": (128, 128, 0),
    "sign": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
UNLABELLED = 11

_TABLE = label_table({i: i for i in range(len(CLASSES))}, ignored=(UNLABELLED,))


class CamVid(SegDataset):
    """The Cambridge-driving Labeled Video Database, 480x360."""

    classes: ClassVar[tuple[str, ...]] = tuple(CLASSES)
    palette: ClassVar[tuple[tuple[int, int, int], ...]] = tuple(CLASSES.values())

    def pairs(self, split: Split) -> list[Pair]:
        """Pairs by file stem."""
        assert self.root is not None
        images = folder(self.root / "images" / split, LAYOUT)
        labels = folder(self.root / "labels" / split, LAYOUT)
        return paired(
            {path.stem: path for path in images.iterdir() if path.suffix in (".jpg", ".png")},
            {path.stem: path for path in labels.iterdir() if path.suffix == ".png"},
            images,
        )

    def table(self, path: Path) -> np.ndarray:
        """One table for every file."""
        return _TABLE
