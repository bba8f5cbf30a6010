"""What the methods of a data set gave back, refused in one line where it is not what they promise.

Only a plugin's can be wrong, in any way. Each check costs far less than the file that was read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trainer.config import IGNORE, UserError, shown
from trainer.config.blame import named
from trainer.data.pairing import Found, Split

INVALID = 254
"""Marks, in a label table, a file value that must not occur."""


def found_by(dataset: Any, split: Split) -> Found:
    """What find() gives. Raises UserError as it does."""
    found = dataset.find(split)
    files = isinstance(found, Found) and (found.images, found.labels)
    if not files or not all(isinstance(one, Mapping) and _are_paths(one.values()) for one in files):
        raise _wrong(dataset, "find", "a Found (trainer.data.pairing) of dictionaries of paths", found)
    return found


def _are_paths(values: Any) -> bool:
    return all(isinstance(value, Path) for value in values)


def paths_of(dataset: Any, split: Split, index: int) -> tuple[str, str]:
    """What paths() gives. Raises UserError where the data set has none."""
    try:
        paths = dataset.paths(split, index)
    except NotImplementedError:
        raise UserError(
            f"{named(dataset)}the data set does not say where its files lie; implement paths(split, index)"
        ) from None
    if not (isinstance(paths, tuple | list) and len(paths) == 2 and all(isinstance(name, str) for name in paths)):
        raise _wrong(dataset, "paths", "the names of an image and of its label below the root", paths)
    return paths[0], paths[1]


def table_of(dataset: Any, path: Path) -> np.ndarray:
    """What table() gives."""
    table, classes = dataset.table(path), len(dataset.classes)
    what = f"an array (256,) uint8 of classes below {classes}, {INVALID} and {IGNORE}, as label_table() makes"
    if not _is_array(table, 1) or len(table) <= IGNORE:
        raise _wrong(dataset, "table", what, table)
    if (strange := (table >= classes) & (table < INVALID)).any():
        raise _wrong(dataset, "table", what, int(table[strange][0]))
    return table


def image_of(dataset: Any, path: Path) -> np.ndarray:
    """What read_image() gives. Raises UserError as it does."""
    image = dataset.read_image(path)
    if not _is_array(image, 3) or image.shape[2] != dataset.channels:
        raise _wrong(dataset, "read_image", f"an array (H, W, {dataset.channels}) uint8", image)
    return image


def label_of(dataset: Any, path: Path) -> np.ndarray:
    """What read_label() gives. Raises UserError as it does."""
    label = dataset.read_label(path)
    if not _is_array(label, 2):
        raise _wrong(dataset, "read_label", "an array (H, W) uint8", label)
    return label


def values_of(dataset: Any, path: Path) -> np.ndarray:
    """What read_values() gives. Raises UserError as it does."""
    values = dataset.read_values(path)
    if not (isinstance(values, np.ndarray) and values.ndim == 2 and values.dtype.kind == "u"):
        raise _wrong(dataset, "read_values", "an array (H, W) of unsigned integers", values)
    return values


def counted_classes(dataset: Any, path: Path, label: np.ndarray) -> np.ndarray:
    """(K,) int64: the pixels of each class in a label. Raises UserError where it holds others."""
    counts = np.bincount(label[label != IGNORE], minlength=len(dataset.classes)).astype(np.int64)
    if len(counts) > len(dataset.classes):
        raise UserError(
            f"{named(dataset)}read_label() gave class {len(counts) - 1} of {path}, but there are classes 0 to "
            f"{len(dataset.classes) - 1}; map the values to these and {IGNORE}"
        )
    return counts


def _is_array(value: Any, axes: int) -> bool:
    return isinstance(value, np.ndarray) and value.ndim == axes and value.dtype == np.uint8


def _wrong(dataset: Any, method: str, what: str, got: Any) -> UserError:
    given = f"{got.dtype} of shape {got.shape}" if isinstance(got, np.ndarray) else " ".join(shown(got).split())
    return UserError(
        f"{named(dataset)}{method}() of {type(dataset).__name__} must give {what}, but gave {given}; correct it"
    )
