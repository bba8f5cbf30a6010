"""SegDataset: what a data set must say of itself; its images and labels paired by stem, and read with clear errors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from PIL import Image

from trainer.config import IGNORE, UserError

Split = Literal["train", "val"]

INVALID = 254
"""Entry of a label table for a value that must not occur."""


class Pair(NamedTuple):
    """One image and its label, on disk."""

    stem: str
    image: Path
    label: Path


class SegDataset:
    """Images with one label a pixel. A subclass names its classes and lists its pairs."""

    classes: ClassVar[tuple[str, ...]]
    palette: ClassVar[tuple[tuple[int, int, int], ...]]  # RGB of each class
    needs_root: ClassVar[bool] = True

    def __init__(self, root: Path | None, *, cache: Path) -> None:
        """`root` is the folder of the data set; `cache` is where a data set that makes its own may put it."""
        self.root = root

    def pairs(self, split: Split) -> list[Pair]:
        """The pairs of a split, sorted by stem. Raises UserError for a missing folder or half."""
        raise NotImplementedError

    def table(self, path: Path) -> np.ndarray:
        """What each value of this label file means: (256,) uint8 of train ids, IGNORE or INVALID."""
        raise NotImplementedError

    def read_image(self, path: Path) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        with _opened(path) as image:
            return np.asarray(image.convert("RGB"))

    def read_label(self, path: Path) -> np.ndarray:
        """(H, W) uint8 of train ids 0..K-1 and IGNORE. Raises UserError naming file, value and place of a stranger."""
        with _opened(path) as image:
            if image.mode not in ("L", "P"):
                raise UserError(
                    f"label {path} has colour mode {image.mode} but must be one 8-bit channel of class indices; "
                    "give the index image, not the coloured one"
                )
            values = np.asarray(image)
        label = self.table(path)[values]
        strangers = label == INVALID
        if strangers.any():
            row, column = (int(at) for at in np.argwhere(strangers)[0])
            raise UserError(
                f"label {path} holds {values[row, column]} at row {row}, column {column} "
                f"({int(strangers.sum())} such pixels) but may hold {_ranges(self.table(path))}; "
                "correct the file or the way it was exported"
            )
        return label

    def read(self, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, 3) and label (H, W), both uint8. Raises UserError when their sizes differ."""
        image, label = self.read_image(pair.image), self.read_label(pair.label)
        if image.shape[:2] != label.shape:
            raise UserError(
                f"image {pair.image} is {image.shape[1]}x{image.shape[0]} but its label {pair.label} is "
                f"{label.shape[1]}x{label.shape[0]} (width x height); they must be equal, so export one of them again"
            )
        return image, label


def label_table(train_ids: Mapping[int, int], ignored: tuple[int, ...]) -> np.ndarray:
    """(256,) uint8: the train id of each file value, IGNORE for those ignored and 255, INVALID for all others."""
    table = np.full(256, INVALID, np.uint8)
    table[[*ignored, IGNORE]] = IGNORE
    for value, train_id in train_ids.items():
        table[value] = train_id
    return table


def folder(path: Path, layout: str) -> Path:
    """`path` if it is a folder, else a UserError that shows the layout expected."""
    if not path.is_dir():
        raise UserError(f"no folder {path}; expected the layout {layout}")
    return path


def cache_folder(path: Path) -> Path:
    """`path`, made if need be. Raises UserError where nobody may write."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the cache folder {path} ({error}); set TRANSKD_CACHE to one you own") from None
    return path


def paired(images: Mapping[str, Path], labels: Mapping[str, Path], where: Path) -> list[Pair]:
    """Pairs sorted by stem. Raises UserError naming the halves that are missing, or when there is no pair at all."""
    for kind, other, have, want in (("image", "label", images, labels), ("label", "image", labels, images)):
        alone = sorted(set(have) - set(want))
        if alone:
            more = f" and {len(alone) - 3} more" if len(alone) > 3 else ""
            named = ", ".join(str(have[stem]) for stem in alone[:3]) + more
            raise UserError(f"{kind} without its {other}: {named}; add the {other} or remove the {kind}")
    if not images:
        raise UserError(f"no images below {where}; check the folder given as data root")
    return [Pair(stem, images[stem], labels[stem]) for stem in sorted(images)]


def _opened(path: Path) -> Image.Image:
    try:
        image = Image.open(path)
        image.load()
    except OSError as error:
        raise UserError(f"cannot read {path} as an image ({error}); restore the file") from None
    return image


def _ranges(table: np.ndarray) -> str:
    """The values a table allows, as `0..10, 11, 255 (ignored)`."""
    classes = np.flatnonzero((table != IGNORE) & (table != INVALID))
    ignored = np.flatnonzero(table == IGNORE)
    return f"{_runs(classes)}, or {_runs(ignored)} (ignored)"


def _runs(values: np.ndarray) -> str:
    runs = np.split(values, np.flatnonzero(np.diff(values) > 1) + 1)
    return ", ".join(f"{run[0]}..{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
