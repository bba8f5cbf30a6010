"""PASCAL VOC 2012: 20 kinds of objects and the background, with or without the SBD annotations ("aug")."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trainer.data.base import Facts, Official, SegDataset, flag, label_table
from trainer.data.images import SUFFIXES
from trainer.data.pairing import Found, Split, by_stem, folder, listed
from trainer.data.palette import voc_colours

LISTS = "ImageSets/Segmentation"
LAYOUT = (
    f"JPEGImages/STEM.jpg with SegmentationClass/STEM.png and the lists {LISTS}/{{train,val}}.txt; "
    f"for data.options.aug also SegmentationClassAug/STEM.png and {LISTS}/trainaug.txt"
)

# Everingham et al., development kit of VOC 2012, section 2.
CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

_TABLE = label_table({i: i for i in range(len(CLASSES))}, ignored=())


class VOC2012(SegDataset):
    """The segmentation task of VOC 2012; 255, the rim of every object, is ignored.

    Images differ in size and aspect ratio. All are resized to `data.size`; the protocol `full` evaluates each at its
    label's own size. `val` is always the official one.
    """

    classes = CLASSES
    palette = voc_colours(len(CLASSES))

    def __init__(self, root: Path | None, *, cache: Path, whole: bool = False, aug: bool = False) -> None:
        """`aug` trains on the 10,582 images of VOC and SBD (Hariharan et al., ICCV 2011) that are not in val; without
        it, on VOC's 1,464."""
        super().__init__(root, cache=cache, whole=whole)
        self.aug = flag("aug", aug)
        self.official = Official(10582 if aug else 1464, 1449, None)

    @classmethod
    def facts(cls, **options: Any) -> Facts:
        """Of VOC 2012. Raises UserError for a wrong option."""
        flag("aug", options.get("aug", False))
        return super().facts(**options)

    def find(self, split: Split) -> Found:
        """Files by the stems in the lists, such as `2007_000032`. SBD's own lists overlap with val and are refused."""
        assert self.root is not None
        images = folder(self.root / "JPEGImages", LAYOUT)
        labels = folder(self.root / self._labels(split), LAYOUT)
        lists: dict[Split, Path] = {"train": self.root / self._list("train"), "val": self.root / self._list("val")}
        return listed(split, lists, by_stem(images, *SUFFIXES), by_stem(labels, ".png"), LAYOUT)

    def table(self, path: Path) -> np.ndarray:
        """The same mapping for every file."""
        return _TABLE

    def paths(self, split: Split, index: int) -> tuple[str, str]:
        """Both splits share the folder of images."""
        stem = f"{split}_{index:06d}"
        return f"JPEGImages/{stem}.jpg", f"{self._labels(split)}/{stem}.png"

    def lists(self, stems: Mapping[Split, list[str]]) -> dict[str, list[str]]:
        """One list per split."""
        return {self._list("train"): stems["train"], self._list("val"): stems["val"]}

    def _labels(self, split: Split) -> str:
        return "SegmentationClassAug" if self.aug and split == "train" else "SegmentationClass"

    def _list(self, split: Split) -> str:
        return f"{LISTS}/trainaug.txt" if self.aug and split == "train" else f"{LISTS}/{split}.txt"
