"""SegDataset: the base class of data sets. It pairs images and labels by stem and reads them with clear errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from trainer.config import IGNORE, UserError, message_of
from trainer.config.blame import named
from trainer.data import images
from trainer.data.pairing import Found, Pair, Split
from trainer.data.palette import Colour
from trainer.data.returned import INVALID, found_by, image_of, label_of, table_of, values_of


class Official(NamedTuple):
    """Sizes of the official splits."""

    train: int  # pairs; 0 where there are no official splits
    val: int
    size: tuple[int, int] | None  # (H, W) of every image in pixels; None where images differ
    conditions: Mapping[str, tuple[int, int]] = {}  # pairs in (train, val) of each condition
    test: int = 0

    def pairs(self, split: Split) -> int:
        """Pairs of a split."""
        return {"train": self.train, "val": self.val, "test": self.test}[split]


class Facts(NamedTuple):
    """What is known of a data set without its folder."""

    classes: tuple[str, ...]
    palette: tuple[Colour, ...]  # RGB of each class
    channels: int = 3  # C
    splits: tuple[Split, ...] = ("train", "val")  # those that may have labels
    read: Callable[[Path], np.ndarray] = images.read_rgb  # an image file -> (H, W, C) uint8


class SegDataset:
    """Images with one label per pixel. A subclass has the classes, finds the files and knows the official splits."""

    classes: tuple[str, ...]
    palette: tuple[Colour, ...]  # RGB of each class
    channels: int = 3  # of an image
    splits: tuple[Split, ...] = ("train", "val")  # those that have labels
    needs_root: ClassVar[bool] = True
    code: ClassVar[str] = ""
    """The sha256 of the plugin that defines the class; packs of other code are not read."""
    remedy_of_values: ClassVar[str] = "correct the file or the way it was exported"
    """What to do about a label that holds a value which must not occur, for its message."""
    official: Official = Official(0, 0, None)

    def __init__(self, root: Path | None, *, cache: Path, whole: bool = False) -> None:
        """`root` is the data set's folder; a data set that generates its images writes them below `cache`.

        With `whole`, a folder with fewer or more pairs than the official splits is an error.
        """
        self.root = root
        self.whole = flag("whole", whole)

    @classmethod
    def expected_splits(cls, **options: Any) -> Official:
        """The official splits under these options; needs no files."""
        return cls(None, cache=Path(), **options).official

    @classmethod
    def facts(cls, **options: Any) -> Facts:
        """Classes, colours and images under these options; needs no files. Raises UserError for a wrong option."""
        flag("whole", options.get("whole", False))
        return Facts(cls.classes, cls.palette)

    @classmethod
    def is_here(cls, root: Path | None, cache: Path, **options: Any) -> bool:
        """Whether the files can be listed without making any."""
        return root is not None

    def find(self, split: Split) -> Found:
        """The files of a split by stem. Raises UserError for a missing folder or list."""
        raise NotImplementedError

    def table(self, path: Path) -> np.ndarray:
        """The mapping of this label file's values: (256,) uint8 of train ids, IGNORE or INVALID."""
        raise NotImplementedError

    def paths(self, split: Split, index: int) -> tuple[str, str]:
        """Paths below the root for image and label of synthetic pair number `index`."""
        raise NotImplementedError

    def lists(self, stems: Mapping[Split, list[str]]) -> dict[str, list[str]]:
        """The list files of the layout: path below the root -> stems. By default there are none."""
        return {}

    def condition_of(self, stem: str) -> str | None:
        """The condition (weather, time of day) of an image, by which mIoU is also reported, or None."""
        return None

    def groups(self, stems: Sequence[str]) -> list[str] | None:
        """The group of each image, such as its video, which is not divided when images are held out, if any."""
        return None

    def glance(self, pairs: Sequence[Pair]) -> None:
        """Raise UserError for a mistake that a few pairs of a split tell at once. By default none is read."""

    def conditions(self, stems: Sequence[str]) -> dict[str, np.ndarray]:
        """Condition -> indices of its stems; empty for a data set without conditions."""
        given = [self.condition_of(stem) for stem in stems]
        if strange := [one for one in given if not isinstance(one, str | None)]:
            raise UserError(f"{named(self)}condition_of() must give a name or None but gave {strange[0]!r}; correct it")
        return {name: np.flatnonzero([other == name for other in given]) for name in sorted({n for n in given if n})}

    def pairs(self, split: Split) -> list[Pair]:
        """The pairs of a split, sorted by stem. Raises UserError as `find` does, and for a file without its partner."""
        found = found_by(self, split)
        for flaw in found.flaws():
            raise UserError(flaw.summary())
        pairs = found.pairs()
        if self.whole and len(pairs) != self.official.pairs(split):
            raise UserError(
                f"split {split} of {self.root} holds {len(pairs)} pairs, officially {self.official.pairs(split)}; "
                "complete the folder, or remove data.options.whole"
            )
        return pairs

    def read_image(self, path: Path) -> np.ndarray:
        """(H, W, C) uint8, by default RGB. Raises UserError for a file that cannot be read faithfully."""
        return images.read_rgb(path)

    def read_values(self, path: Path) -> np.ndarray:
        """(H, W): what a label file holds. Raises UserError for a file that cannot be read faithfully."""
        return images.read_indices(path)

    def read_label(self, path: Path) -> np.ndarray:
        """(H, W) uint8 of train ids 0..K-1 and IGNORE. Raises UserError with file and pixel of an invalid value."""
        values, table = values_of(self, path), table_of(self, path)
        if values.dtype == np.uint8:
            label = table[values]
        else:
            label = np.where(values < len(table), table[np.minimum(values, len(table) - 1)], INVALID).astype(np.uint8)
        invalid = label == INVALID
        if invalid.any():
            row, column = (int(at) for at in np.argwhere(invalid)[0])
            raise UserError(
                f"label {path} holds {values[row, column]} at row {row}, column {column} "
                f"({int(invalid.sum())} such pixels) but may hold {_ranges(table)}; {self.remedy_of_values}"
            )
        return label

    def read(self, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, 3) and label (H, W), both uint8. Raises UserError when their sizes differ."""
        image, label = image_of(self, pair.image), label_of(self, pair.label)
        refuse_unequal(pair, image, label)
        return image, label


def refuse_unequal(pair: Pair, image: np.ndarray, label: np.ndarray) -> None:
    """Raise UserError when an image (H, W, 3) and its label (H, W), both upright, differ in size, or may be turned.

    Labels are made on the upright image or on the stored one. Where only one of two orientations exchanges height and
    width, the sizes tell; otherwise different orientations are refused.
    """
    turns = {path: images.orientation(path) for path in (pair.image, pair.label)}
    if image.shape[:2] == label.shape:
        on_side = [turn > 4 for turn in turns.values()]
        if len(set(turns.values())) > 1 and (on_side[0] == on_side[1] or label.shape[0] == label.shape[1]):
            raise UserError(
                f"image {pair.image} has orientation {turns[pair.image]} (EXIF) but its label {pair.label} has "
                f"{turns[pair.label]}, and their sizes do not tell whether the label was made on the upright image; "
                "save both upright, without the tag"
            )
    else:
        if image.shape[:2] == label.shape[::-1] and set(turns.values()) != {1}:
            raise UserError(
                f"image {pair.image} has orientation {turns[pair.image]} (EXIF) but its label {pair.label} has "
                f"{turns[pair.label]}, so that one of them lies on its side; export the label of the upright image, or "
                "save both without the tag"
            )
        raise UserError(
            f"image {pair.image} is {image.shape[1]}x{image.shape[0]} but its label {pair.label} is "
            f"{label.shape[1]}x{label.shape[0]} (width x height); they must be equal, so export one of them again"
        )


def label_table(train_ids: Mapping[int, int], ignored: tuple[int, ...]) -> np.ndarray:
    """(256,) uint8: the train id of each file value, IGNORE for those ignored and 255, INVALID for all others."""
    table = np.full(256, INVALID, np.uint8)
    table[[*ignored, IGNORE]] = IGNORE
    for value, train_id in train_ids.items():
        table[value] = train_id
    return table


def flag(name: str, value: bool) -> bool:
    """`value`. Raises UserError naming the option unless it is true or false."""
    if type(value) is not bool:
        raise UserError(f"data.options: {name} must be true or false but got {value!r}; write it without quotes")
    return value


def cache_folder(path: Path) -> Path:
    """Make the folder `path` and return it. Raises UserError when that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make the cache folder {path} ({message_of(error)}); set TRANSKD_CACHE to one you own"
        ) from None
    return path


def _ranges(table: np.ndarray) -> str:
    """The values a table allows, as `0..10, 11, 255 (ignored)`."""
    classes = np.flatnonzero((table != IGNORE) & (table != INVALID))
    ignored = np.flatnonzero(table == IGNORE)
    return f"{_runs(classes)}, or {_runs(ignored)} (ignored)"


def _runs(values: np.ndarray) -> str:
    runs = np.split(values, np.flatnonzero(np.diff(values) > 1) + 1)
    return ", ".join(f"{run[0]}..{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
