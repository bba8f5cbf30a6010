"""Discover: which files below a folder are images and masks, and which belong together, from names and contents."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from glob import escape
from pathlib import Path
from typing import NamedTuple

from trainer.config import UserError, counted
from trainer.data.images import ENDINGS
from trainer.data.own_folder.mask_contents import looks_like_mask, why_no_mask
from trainer.data.own_folder.walk import files_below
from trainer.data.pairing import Split, composed, is_hidden

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
_OF_IMAGES = frozenset(
    (
        *("image", "images", "img", "imgs", "rgb", "photo", "photos", "picture", "pictures", "jpegimages"),
        *("leftimg8bit", "input", "inputs", "x"),
    )
)
"""Words in the names of folders that hold images."""
_OF_MASKS = frozenset(
    (
        *("mask", "masks", "label", "labels", "gt", "gtfine", "annotation", "annotations", "annot", "annots"),
        *("segmentation", "segmentationclass", "target", "targets", "y"),
    )
)
"""Words in the names of folders that hold masks, also beside a word of images: `gt_image`."""


class Unit(NamedTuple):
    """Files of one kind below a folder: what a pattern of the options matches."""

    pattern: str
    split: Split | None
    files: dict[str, Path]  # by stem without the ending that all have in common
    is_mask: bool
    flaw: str = ""
    """Why files in a folder of masks can be none."""

    def __str__(self) -> str:
        return f"{counted(len(self.files), 'mask' if self.is_mask else 'image')} as {self.pattern}"


class Match(NamedTuple):
    """Images and masks that belong together."""

    images: Unit
    masks: Unit

    @property
    def pairs(self) -> list[str]:
        """The stems of both, sorted."""
        return sorted(self.images.files.keys() & self.masks.files.keys())


class Discovery(NamedTuple):
    """What a folder holds."""

    matches: list[Match]  # at most one for each split
    left_out: dict[Split | None, list[str]]  # split -> the files that belong to no match, with the reason


def discover(root: Path) -> Discovery:
    """The images and masks below `root`. Raises UserError where none belong together."""
    found = [unit for key, files in _by_folder(root).items() for unit in _units(root, *key, files)]
    pictures, masks = [u for u in found if not u.is_mask], [u for u in found if u.is_mask and not u.flaw]
    best: dict[Split | None, Match] = {}
    for match in (Match(picture, mask) for picture in pictures for mask in masks if picture.split == mask.split):
        split = match.images.split
        if match.pairs and (split not in best or len(match.pairs) > len(best[split].pairs)):
            best[split] = match
    if not best:
        raise UserError(
            f"no images with masks below {root}: {_told(found)}; a mask has the name of its image, but for an ending "
            "that all masks share, and is stored without loss (PNG, TIFF, BMP, .npy); say where they are with --images "
            "and --masks"
        )
    divided = {split: match for split, match in best.items() if split is not None}
    matches = list(divided.values()) if "train" in divided else [max(best.values(), key=lambda m: len(m.pairs))]
    return Discovery(matches, _left_out(found, best, matches))


def _left_out(
    found: Sequence[Unit], best: Mapping[Split | None, Match], matches: Sequence[Match]
) -> dict[Split | None, list[str]]:
    used = {id(unit) for match in matches for unit in match}
    left: dict[Split | None, list[str]] = {}
    for unit in found:
        if id(unit) not in used:
            left.setdefault(unit.split, []).append(f"{unit}: {unit.flaw or _why_unused(unit, best.get(unit.split))}")
    return left


def _why_unused(unit: Unit, best: Match | None) -> str:
    """`best` is the match of the unit's split."""
    if best is None:
        return f"no {'image' if unit.is_mask else 'mask'} has their names"
    if unit is best.images or unit is best.masks:
        return "there are folders of splits" if unit.split is None else "there is no split train"
    return f"{(best.masks if unit.is_mask else best.images).pattern} has as many or more pairs"


def _told(units: Sequence[Unit]) -> str:
    told = [f"{unit}{f' ({unit.flaw})' if unit.flaw else ''}" for unit in units]
    return f"found {', '.join(told[:6])}" if told else "found no file of a known ending"


def _by_folder(root: Path) -> dict[tuple[str, Split | None], list[Path]]:
    """(folder below the root that stands for a kind and split, split) -> the files below it."""
    found: dict[tuple[str, Split | None], list[Path]] = {}
    for path in files_below(root):
        relative = path.relative_to(root)
        if path.suffix.lower() in ENDINGS and not is_hidden(relative) and path.is_file():
            parts = relative.parts[:-1]
            words = [_words(part.lower()) for part in parts]
            splits = [i for i, found_in in enumerate(words) if found_in & _SPLITS.keys()]
            kinds = [i for i, found_in in enumerate(words) if found_in & (_OF_IMAGES | _OF_MASKS)]
            depth = max([*splits[:1], *kinds[:1], 0]) + 1
            if splits[:1] == [0] and not kinds:
                depth = 2
            split = split_of(parts[splits[0]]) if splits else None
            found.setdefault(("/".join(parts[:depth]), split), []).append(path)
    return found


def split_of(folder: str) -> Split | None:
    """The split that the name of a folder tells, if any."""
    found = _words(folder.lower()) & _SPLITS.keys()
    return _SPLITS[min(found)] if found else None


def _words(name: str) -> set[str]:
    """The words of a folder's name: {train, labels} of train_labels, {train, annot} of trainannot."""
    joined = [split for split in _SPLITS if name.startswith(split) and name[len(split) :] in _OF_IMAGES | _OF_MASKS]
    return {*re.split(r"[\W_]+", name), *joined, *(name[len(split) :] for split in joined)}


def _units(root: Path, where: str, split: Split | None, files: list[Path]) -> list[Unit]:
    """All files of a folder where they are of one kind, else those of each ending."""
    groups = _groups(files)
    named = None if _are_beside(groups) else _named_kind(where)
    kinds = {(ending, tail): _kind(own, tail, named) for (ending, tail), own in groups.items()}
    if where and len({(is_mask, bool(flaw)) for is_mask, flaw in kinds.values()}) == 1:
        tail = _common_tail(files)
        pattern = f"{escape(where)}/**/*{escape(tail)}.*" if tail else where
        return [_unit(root / where, pattern, split, files, tail, *next(iter(kinds.values())))]
    glob = f"{escape(where)}/**/*" if where else "**/*"
    return [
        _unit(root / where, f"{glob}{escape(tail)}{ending}", split, own, tail, *kinds[ending, tail])
        for (ending, tail), own in groups.items()
    ]


def _kind(files: Sequence[Path], tail: str, named: bool | None) -> tuple[bool, str]:
    """Whether files are masks, by the name of their folder, the ending of their names, or else a few of them; and why
    those that are called masks can be none."""
    samples = [files[len(files) * i // _SAMPLES] for i in range(_SAMPLES)]
    is_mask = _named_kind(tail) if named is None else named
    if is_mask is None:
        return all(map(looks_like_mask, samples)), ""
    return is_mask, next(filter(None, map(why_no_mask, samples)), "") if is_mask else ""


def _named_kind(where: str) -> bool | None:
    """Whether a path's first word of a kind is one of masks; None where it has none."""
    for part in where.lower().split("/"):
        words = _words(part)
        if words & (_OF_MASKS | _OF_IMAGES):
            return bool(words & _OF_MASKS)
    return None


def _are_beside(groups: Mapping[tuple[str, str], Sequence[Path]]) -> bool:
    """Whether files of two groups have one name, as images and masks in one folder."""
    names = [str(path.with_suffix("")).removesuffix(tail) for (_, tail), own in groups.items() for path in own]
    return len(set(names)) < len(names)


def _unit(
    base: Path, pattern: str, split: Split | None, files: Iterable[Path], tail: str, is_mask: bool, flaw: str
) -> Unit:
    stems = {composed(path.relative_to(base).with_suffix("").as_posix().removesuffix(tail)): path for path in files}
    return Unit(pattern, split, stems, is_mask, flaw)


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
