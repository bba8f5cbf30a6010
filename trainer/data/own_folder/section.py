"""Section: the `data:` section that fits a folder of a user, proposed from what it holds."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trainer.config import UserError
from trainer.data import arrays, images
from trainer.data.own_folder.class_values import LARGEST_VALUE
from trainer.data.own_folder.discover import Match
from trainer.data.own_folder.mask_contents import MOST_VALUES, mask_array, mask_values
from trainer.data.pairing import by_name, read_list

HELD_OUT = 0.2
"""The share of the images that becomes val where the folder has none."""
_STEP = 32
_LONGEST = 1024
"""Of the proposed input size, in pixels: its step, and its longer side at most."""
_VOID = (0, 0, 0)
_GROUPS = (r"^(.+)/", r"^(.+?)[_-][a-zA-Z]*\d+$")
"""Expressions of groups that are tried: folders, and names before a number."""

Value = int | tuple[int, int, int]


class Seen(NamedTuple):
    """What the masks of a folder hold."""

    shares: dict[Value, float]  # of all pixels, by value or colour
    ignored: Value | None  # likely no class


def seen_in(files: Sequence[Path], progress: Callable[[int, int], None]) -> Seen:
    """The values or colours of all masks. Raises UserError for masks of both kinds, or with too many values."""
    counts: dict[Value, int] = {}
    for done, path in enumerate(files):
        values, pixels = mask_values(path)
        found: list[Value] = [(int(v[0]), int(v[1]), int(v[2])) if values.ndim == 2 else int(v) for v in values]
        if counts and isinstance(found[0], tuple) != isinstance(next(iter(counts)), tuple):
            raise UserError(
                f"{path} holds {'colours' if values.ndim == 2 else 'values'}, and masks before it do not; "
                "store all masks alike"
            )
        for value, count in zip(found, pixels, strict=True):
            counts[value] = counts.get(value, 0) + int(count)
        if len(counts) > MOST_VALUES:
            raise UserError(
                f"{path} and the masks before it hold more than {MOST_VALUES} different values, as photographs and "
                "masks saved with loss do; say where images and masks are with --images and --masks, or export the "
                "masks without loss"
            )
        progress(done + 1, len(files))
    total = sum(counts.values())
    shares = {value: counts[value] / total for value in sorted(counts)}
    void: Value = _VOID if isinstance(next(iter(counts)), tuple) else LARGEST_VALUE if LARGEST_VALUE in counts else 255
    return Seen(shares, void if void in counts and len(counts) > 2 else None)


def proposed(root: Path, matches: Sequence[Match], seen: Seen) -> dict[str, Any]:
    """The section as plain data."""
    options: dict[str, Any] = {}
    split = {match.images.split: match for match in matches}
    if {"train", "val"} <= set(split):
        for kind in ("images", "masks"):
            options[kind] = {
                str(which): getattr(split[which], kind).pattern for which in ("train", "val", "test") if which in split
            }
    else:
        match = split.get("train", matches[0])
        options |= {"images": match.images.pattern, "masks": match.masks.pattern}
        options |= _lists(root, match) or _held_out(match.pairs)
    options |= _classes(seen) | _channels(matches)
    return {"name": "folder", "size": _size(matches), "options": options}


def _classes(seen: Seen) -> dict[str, Any]:
    values = [value for value in seen.shares if value != seen.ignored]
    names = [f"class {i}" for i in range(len(values))]
    if isinstance(values[0], tuple):
        found: dict[str, Any] = {
            "classes": {
                name: list(value) for name, value in zip(names, values, strict=True) if isinstance(value, tuple)
            }
        }
        return found | ({} if seen.ignored is None else {"ignore": [list(_VOID)]})
    found = {
        "classes": names if values == list(range(len(values))) else dict(zip(map(str, values), names, strict=True))
    }
    return found | ({} if seen.ignored is None else {"ignore": [seen.ignored]})


def _lists(root: Path, match: Match) -> dict[str, Any]:
    """train.txt and val.txt of the folder, where each names images of it."""
    known = by_name({*match.images.files, *match.masks.files})
    here = {}
    for split in ("train", "val", "test"):
        with contextlib.suppress(UserError):  # that there is no such list, or one that cannot be read
            if set(read_list(root / f"{split}.txt", known)) & set(match.pairs):
                here[split] = f"{split}.txt"
    return {"lists": here} if {"train", "val"} <= set(here) else {}


def _held_out(stems: Sequence[str]) -> dict[str, Any]:
    for group in _GROUPS:
        matched = [re.search(group, stem) for stem in stems]
        names = {match[1] for match in matched if match}
        if all(matched) and 3 <= len(names) <= len(stems) // 2:
            return {"holdout": {"val": HELD_OUT}, "group": group}
    return {"holdout": {"val": HELD_OUT}}


def _stored(match: Match) -> np.ndarray:
    """The first image, without an alpha channel that says nothing."""
    path = match.images.files[match.pairs[0]]
    if path.suffix.lower() == images.ARRAY:
        return arrays.read_array(path)
    stored = images.read_stored(path)
    has_alpha = stored.ndim == 3 and stored.shape[2] in (2, 4) and stored[..., -1].min() == stored[..., -1].max()
    return stored[..., :-1] if has_alpha else stored


def _channels(matches: Sequence[Match]) -> dict[str, Any]:
    """`channels` where images are not RGB, and `range` where their type has no bounds."""
    try:
        first = _stored(matches[0])
    except UserError:  # colours of a palette, which are read as RGB
        return {}
    channels = 1 if first.ndim == 2 else first.shape[2]
    found: dict[str, Any] = {} if channels == 3 else {"channels": channels}
    if first.dtype in (np.uint8, np.uint16):
        return found
    of_train = [arrays.read_array(matches[0].images.files[stem]) for stem in matches[0].pairs]
    low, high = min(float(a.min()) for a in of_train), max(float(a.max()) for a in of_train)
    return found | {"range": [low, high]}


def _size(matches: Sequence[Match]) -> list[int]:
    """The middle one of the sizes, in steps of 32."""
    stems = matches[0].pairs[:: max(1, len(matches[0].pairs) // 20)]
    shapes = sorted(mask_array(matches[0].masks.files[stem]).shape[:2] for stem in stems)
    height, width = shapes[len(shapes) // 2]
    scale = min(1.0, _LONGEST / max(height, width))
    return [max(_STEP, round(side * scale / _STEP) * _STEP) for side in (height, width)]
