"""NYU Depth v2 in 40 classes of indoor scenes: RGB and labels, the official split of 795 and 654 images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from trainer.config import UserError
from trainer.data.base import Official, SegDataset, label_table
from trainer.data.images import SUFFIXES
from trainer.data.pairing import Found, Split, by_stem, listed
from trainer.data.palette import voc_colours

# Copies converted to PNG differ in the names of their folders only: those of CMX (Zhang et al., arXiv 2203.04838) and
# DFormer, those of the paper's code, and those of mmsegmentation's descendants.
FOLDERS = (("RGB", "Label"), ("images", "labels40"), ("image", "label40"))
LAYOUT = (
    "RGB/STEM.jpg (or .png) with Label/STEM.png (or images/ with labels40/, or image/ with label40/) "
    "and the lists train.txt, test.txt"
)

# Gupta, Arbelaez and Malik (CVPR 2013): 40 classes out of the 894 of Silberman et al. (ECCV 2012).
CLASSES = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter",
    "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes", "ceiling", "books",
    "refrigerator", "television", "paper", "towel", "shower curtain", "box", "whiteboard", "person", "night stand",
    "toilet", "sink", "lamp", "bathtub", "bag", "otherstructure", "otherfurniture", "otherprop",
)  # fmt: skip

# Files hold 1..40, and 0 for unlabelled. The published code subtracts 1 in PIL, where 0 stays 0: it trains and
# evaluates unlabelled pixels as class 0, wall.
_TABLE = label_table({i + 1: i for i in range(len(CLASSES))}, ignored=(0,))


class NYUv2(SegDataset):
    """NYU Depth v2 without its depth, 640x480; `val` is the official test split. Depth folders are ignored."""

    classes = CLASSES
    palette = voc_colours(len(CLASSES) + 1)[1:]
    official = Official(795, 654, (480, 640))

    def find(self, split: Split) -> Found:
        """Files by the stems in the lists."""
        assert self.root is not None
        for pictures, truths in FOLDERS:
            images, labels = self.root / pictures, self.root / truths
            if images.is_dir() and labels.is_dir():
                lists: dict[Split, Path] = {"train": self.root / "train.txt", "val": self.root / "test.txt"}
                return listed(split, lists, by_stem(images, *SUFFIXES), by_stem(labels, ".png"), LAYOUT)
        raise UserError(f"no folders RGB and Label in {self.root}; expected the layout {LAYOUT}")

    def table(self, path: Path) -> np.ndarray:
        """The same mapping for every file."""
        return _TABLE

    def paths(self, split: Split, index: int) -> tuple[str, str]:
        """Both splits share the folders."""
        return f"RGB/{split}_{index:05d}.jpg", f"Label/{split}_{index:05d}.png"

    def lists(self, stems: Mapping[Split, list[str]]) -> dict[str, list[str]]:
        """One list per split."""
        return {"train.txt": stems["train"], "test.txt": stems["val"]}
