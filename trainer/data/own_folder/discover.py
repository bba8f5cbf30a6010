"""Discover: which files below a folder are images and masks, and which belong together, from names and contents."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trainer.config import UserError
from trainer.data import arrays, images
from trainer.data.own_folder.patterns import find_files
from trainer.data.pairing import Split, composed, is_hidden

MOST_VALUES = 256
"""Different values or colours up to which a picture without loss is taken for a mask."""
_SAMPLES = 3
_SPLITS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Names of folders, in lower case, that hold a split."""
_KINDS = frozenset(
    (
        *("image", "images", "img", "imgs", "rgb", "photo", "photos", "picture", "pictures", "jpegimages"),
        *("leftimg8bit", "input", "inputs", "x", "mask", "masks", "label", "labels", "gt", "gtfine", "annotation"),
        *("annotations", "annot", "annots", "segmentation", "segmentationclass", "target", "targets", "y"),
    )
)
"""Names of folders that hold images or masks."""


class Unit(NamedTuple):
    """Files of one kind below a folder: what a pattern of the options matches."""

    pattern: str
    split: Split | None
    files: dict[str, Path]  # by stem without the ending that all have in common
    is_mask: bool


class Match(NamedTuple):
    """Images and masks that belong together."""

    images: Unit
    masks: Unit

    @property
    def pairs(self) -> list[str]:
        """The stems of both, sorted."""
        return sorted(self.images.files.keys() & self.masks.files.keys())


def discover(root: Path) -> list[Match]:
    """The matches below `root`, at most one for each split. Raises UserError where none is found."""
    found = [unit for key, files in _by_folder(root).items() for unit in _units(root, *key, files)]
    pictures, masks = [u for u in found if not u.is_mask], [u for u in found if u.is_mask]
    best: dict[Split | None, Match] = {}
    for match in (Match(picture, mask) for picture in pictures for mask in masks if picture.split == mask.split):
        split = match.images.split
        if match.pairs and (split not in best or len(match.pairs) > len(best[split].pairs)):
            best[split] = match
    if not best:
        raise UserError(
            f"no images with masks below {root}: {_told(found)}; a mask has the name of its image, but for an ending "
            "that all masks share, and is stored without loss (PNG, TIFF, BMP, .npy)"
        )
    divided = {split: match for split, match in best.items() if split is not None}
    return list(divided.values()) if "train" in divided else [max(best.values(), key=lambda match: len(match.pairs))]


def _told(units: Sequence[Unit]) -> str:
    counted = [f"{len(u.files)} {'masks' if u.is_mask else 'images'} as {u.pattern}" for u in units]
    return f"found {', '.join(counted[:6])}" if counted else "found no file of a known ending"


def _by_folder(root: Path) -> dict[tuple[str, Split | None], list[Path]]:
    """(folder below the root that stands for a kind and split, split) -> the files below it."""
    found: dict[tuple[str, Split | None], list[Path]] = {}
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if path.suffix.lower() in images.ENDINGS and not is_hidden(relative) and path.is_file():
            parts = relative.parts[:-1]
            words = [_words(part.lower()) for part in parts]
            splits = [i for i, found_in in enumerate(words) if found_in & _SPLITS.keys()]
            kinds = [i for i, found_in in enumerate(words) if found_in & _KINDS]
            depth = max([*splits[:1], *kinds[:1], 0]) + 1
            if splits[:1] == [0] and not kinds:
                depth = 2
            split = _SPLITS[min(words[splits[0]] & _SPLITS.keys())] if splits else None
            found.setdefault(("/".join(parts[:depth]), split), []).append(path)
    return found


def _words(name: str) -> set[str]:
    """The words of a folder's name: {train, labels} of train_labels, {train, annot} of trainannot."""
    joined = [split for split in _SPLITS if name.startswith(split) and name[len(split) :] in _KINDS]
    return {*re.split(r"[_\-. ]", name), *joined, *(name[len(split) :] for split in joined)}


def _units(root: Path, where: str, split: Split | None, files: list[Path]) -> list[Unit]:
    """All files of a folder where they are of one kind, else those of each ending."""
    groups = _groups(files)
    kinds = {key: all(is_mask(own[len(own) * i // _SAMPLES]) for i in range(_SAMPLES)) for key, own in groups.items()}
    if where and len(set(kinds.values())) == 1:
        tail = _common_tail(files)
        pattern = f"{where}/**/*{tail}.*" if tail else where
        return [_unit(root / where, pattern, split, files, tail, next(iter(kinds.values())))]
    glob = f"{where}/**/*" if where else "**/*"
    return [
        _unit(root / where, f"{glob}{tail}{ending}", split, own, tail, kinds[ending, tail])
        for (ending, tail), own in groups.items()
    ]


def _unit(base: Path, pattern: str, split: Split | None, files: Iterable[Path], tail: str, is_mask: bool) -> Unit:
    stems = {composed(path.relative_to(base).with_suffix("").as_posix().removesuffix(tail)): path for path in files}
    return Unit(pattern, split, stems, is_mask)


def _groups(files: Sequence[Path]) -> dict[tuple[str, str], list[Path]]:
    """(ending of the file, ending of its name beside another name: `_mask` where there are a and a_mask) -> files."""
    names = {str(path.with_suffix("")) for path in files}
    found: dict[tuple[str, str], list[Path]] = {}
    for path in files:
        stem = path.stem
        starts = [at for at in range(1, len(stem)) if stem[at] in "_-." and str(path.with_name(stem[:at])) in names]
        found.setdefault((path.suffix, stem[starts[-1] :] if starts else ""), []).append(path)
    return found


def _common_tail(files: Sequence[Path]) -> str:
    """What all names end in, from a `_` on: `_gtFine_labelIds`."""
    stems = [path.stem for path in files]
    starts = [at for at, character in enumerate(stems[0]) if character == "_" and at]
    tails = [stems[0][at:] for at in starts] if len(set(stems)) > 1 else []
    return next((tail for tail in tails if all(stem.endswith(tail) for stem in stems)), "")


def is_mask(path: Path) -> bool:
    """Whether a file is stored without loss and holds few different values or colours."""
    try:
        if path.suffix.lower() == images.ARRAY:
            values = arrays.read_array(path)
            whole = np.issubdtype(values.dtype, np.integer) or values.dtype == np.bool_
            return values.ndim == 2 and whole and len(np.unique(values)) <= MOST_VALUES
        return len(mask_values(path)[0]) <= MOST_VALUES
    except UserError:
        return False


def mask_values(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The different values of a mask, (n,) integers or (n, 3) colours, and the pixels of each, (n,).

    Raises UserError for a file that can hold neither.
    """
    mask = mask_array(path)
    if mask.ndim == 2:
        return np.unique(mask, return_counts=True)
    codes = (mask.reshape(-1, 3).astype(np.uint32) << np.array([16, 8, 0], np.uint32)).sum(1, dtype=np.uint32)
    found, counts = np.unique(codes, return_counts=True)
    return np.stack([found >> 16, found >> 8 & 255, found & 255], axis=1), counts


def mask_array(path: Path) -> np.ndarray:
    """(H, W) values, or (H, W, 3) colours. Raises UserError for a file that can hold neither."""
    try:
        return arrays.read_values(path)
    except UserError:
        if path.suffix.lower() == images.ARRAY:
            raise
    return images.read_colours(path)


def given_match(root: Path, pictures: str, masks: str) -> Match:
    """The match of two patterns that a user names. Raises UserError where nothing matches."""
    masked = find_files("--masks", root, masks)
    taken = set(masked.values()) if pictures != masks else set()
    found = find_files("--images", root, pictures, without=taken)
    match = Match(Unit(pictures, None, found, False), Unit(masks, None, masked, True))
    if not match.pairs:
        raise UserError(
            f"--images {pictures} and --masks {masks} have no name in common, for example {next(iter(found))} and "
            f"{next(iter(masked))}; what the wildcards stand for must be equal"
        )
    return match
