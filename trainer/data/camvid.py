"""CamVid in 11 classes: `images/{train,val,test}/STEM.jpg` with `labels/.../STEM.png`, index 11 ignored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from trainer.data.base import Facts, Official, SegDataset, label_table
from trainer.data.images import SUFFIXES
from trainer.data.pairing import Found, Split, by_stem, folder

LAYOUT = "images/{train,val}/STEM.jpg (or .png) with labels/{train,val}/STEM.png (and test, where it is evaluated)"

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
    """The Cambridge-driving Labeled Video Database, 480x360, in the split of the SegNet tutorial.

    Published results are of its 233 test images, which `val/miou` is not comparable with: `eval.splits` asks for them.
    """

    classes = tuple(CLASSES)
    palette = tuple(CLASSES.values())
    official = Official(367, 101, (360, 480), test=233)

    def __init__(self, root: Path | None, *, cache: Path, whole: bool = False) -> None:
        """There is a test split where its images are."""
        super().__init__(root, cache=cache, whole=whole)
        if root is not None and (root / "images" / "test").is_dir():
            self.splits = ("train", "val", "test")

    @classmethod
    def facts(cls, **options: Any) -> Facts:
        """With a test split, which a folder may lack."""
        return super().facts(**options)._replace(splits=("train", "val", "test"))

    def find(self, split: Split) -> Found:
        """Files by stem."""
        assert self.root is not None
        images = folder(self.root / "images" / split, LAYOUT)
        labels = folder(self.root / "labels" / split, LAYOUT)
        return Found(by_stem(images, *SUFFIXES), by_stem(labels, ".png"), images)

    def paths(self, split: Split, index: int) -> tuple[str, str]:
        """Each split has its own folder."""
        return f"images/{split}/made_{index:05d}.png", f"labels/{split}/made_{index:05d}.png"

    def table(self, path: Path) -> np.ndarray:
        """The same mapping for every file."""
        return _TABLE
