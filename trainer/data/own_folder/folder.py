"""Folder: a user's own images and masks, wherever they lie and whatever the masks' values mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trainer.config import UserError
from trainer.data import arrays, images
from trainer.data.base import Facts, Official, SegDataset
from trainer.data.own_folder.class_values import class_values
from trainer.data.own_folder.folder_options import folder_options
from trainer.data.own_folder.groups import crossing, groups_of, hold_out
from trainer.data.own_folder.patterns import find_files, without_wildcards
from trainer.data.pairing import Found, Pair, Split, by_name, read_list
from trainer.data.palette import Colour
from trainer.data.returned import INVALID

GLANCES = 3
"""Masks of each split that are read before anything runs."""


class Folder(SegDataset):
    """Images and masks below one folder, as the options say; docs/own-data.md describes them all.

    There are no official splits. A run's id depends on the files' bytes and stems, and on the options.
    """

    classes: tuple[str, ...] = ()
    palette: tuple[Colour, ...] = ()
    official = Official(0, 0, None)
    remedy_of_values = "add it to data.options.classes or data.options.ignore, or correct the file"

    def __init__(
        self,
        root: Path | None,
        *,
        cache: Path,
        classes: Any,
        images: Any = "images",
        masks: Any = "masks",
        ignore: Any = (),
        lists: Any = None,
        holdout: Any = None,
        group: Any = None,
        channels: Any = 3,
        range: Any = None,
    ) -> None:
        """See FolderOptions and `class_values`. Raises UserError."""
        super().__init__(root, cache=cache)
        given = {"images": images, "masks": masks, "classes": classes, "ignore": ignore, "lists": lists}
        self.options = folder_options(
            given | {"holdout": holdout, "group": group, "channels": channels, "range": range}
        )
        self.values = class_values(self.options.classes, self.options.ignore)
        self.classes, self.palette = self.values.names, self.values.palette
        self.channels, self.splits = self.options.channels, self.options.splits

    @classmethod
    def facts(cls, **options: Any) -> Facts:
        """Of the options alone."""
        made = cls(None, cache=Path(), **options)
        read = partial(arrays.read_image, channels=made.channels, span=made.options.range)
        return Facts(made.classes, made.palette, made.channels, made.splits, read)

    @classmethod
    def expected_splits(cls, **options: Any) -> Official:
        """There are none. Raises UserError."""
        raise UserError("data set 'folder': its images cannot be counted without them; give --data-root FOLDER")

    def find(self, split: Split) -> Found:
        """Files by what the wildcards of their paths stand for. Raises UserError for a pattern that matches nothing, a
        list that cannot be read, or a group expression that does not fit."""
        assert self.root is not None
        if split not in self.splits:
            raise UserError(f"data.options: no split {split} is named, only {', '.join(self.splits)}; add it")
        if self.options.lists is not None:
            found = self._listed(split, {which: self.root / name for which, name in self.options.lists.items()})
        elif self.options.holdout is not None:
            pictures, masks = self._files(None)
            stems = groups_of(sorted({*pictures, *masks}), self.options.group)
            divided = hold_out(stems, {which: self.options.holdout[which] for which in self.splits[1:]})  # type: ignore[index]
            own = {stem for stem, which in divided.items() if which == split}
            return Found(_only(pictures, own), _only(masks, own), self.root)
        else:
            pictures, masks = self._files(split)
            found = Found(pictures, masks, self.root)
        return found._replace(more=tuple(self._crossing(split, found)))

    def _files(self, split: Split | None) -> tuple[dict[str, Path], dict[str, Path]]:
        """Images and masks by stem, of a split or of one folder for all. Where both are in one folder, a mask is no
        image."""
        assert self.root is not None
        of = self.options
        place = f".{split}" if split else ""
        picture = of.images[split] if isinstance(of.images, dict) and split else str(of.images)
        mask = of.masks[split] if isinstance(of.masks, dict) and split else str(of.masks)
        masks = find_files(f"data.options.masks{place}", self.root, mask)
        taken = set(masks.values()) if picture != mask else set()
        pictures = find_files(f"data.options.images{place}", self.root, picture, without=taken)
        return pictures, masks

    def _listed(self, split: Split, lists: Mapping[Split, Path]) -> Found:
        pictures, masks = self._files(None)
        known = by_name({*pictures, *masks})
        stems = {which: read_list(path, known) for which, path in lists.items()}
        others = {stem for which, listed in stems.items() if which != split for stem in listed}
        lost = tuple(stem for stem in stems[split] if stem not in pictures and stem not in masks)
        shared = tuple(sorted(others & set(stems[split])))
        own = set(stems[split])
        return Found(_only(pictures, own), _only(masks, own), lists[split], lost, shared, lists)

    def _crossing(self, split: Split, found: Found) -> Sequence[Any]:
        """The groups that stand in this split and in one before it."""
        if self.options.group is None:
            return ()
        mine = groups_of(found.images, self.options.group)
        before = self.splits[: self.splits.index(split)]
        others = {which: groups_of(self._stems(which), self.options.group) for which in before}
        return crossing(mine, others, split)

    def _stems(self, split: Split) -> set[str]:
        assert self.root is not None
        if self.options.lists is None:
            return set(self._files(split)[0])
        pictures = self._files(None)[0]
        return set(read_list(self.root / self.options.lists[split], by_name(set(pictures)))) & set(pictures)

    def groups(self, stems: Sequence[str]) -> list[str] | None:
        """The group of each stem."""
        return None if self.options.group is None else list(groups_of(stems, self.options.group).values())

    def glance(self, pairs: Sequence[Pair]) -> None:
        """Read a few pairs. Raises UserError as `read` does."""
        for at in sorted({len(pairs) * i // GLANCES for i in range(GLANCES)}):
            self.read(pairs[at])

    def read_image(self, path: Path) -> np.ndarray:
        """(H, W, C) uint8."""
        return arrays.read_image(path, self.channels, self.options.range)

    def read_values(self, path: Path) -> np.ndarray:
        """(H, W) uint8 or uint16."""
        return arrays.read_values(path)

    def read_label(self, path: Path) -> np.ndarray:
        """(H, W) uint8 of train ids and IGNORE, from values or colours."""
        if not self.values.colours:
            return super().read_label(path)
        rgb = images.read_colours(path)
        label = self.values.labels(rgb)
        invalid = label == INVALID
        if invalid.any():
            row, column = (int(at) for at in np.argwhere(invalid)[0])
            strangers = np.unique(rgb[invalid], axis=0)
            raise UserError(
                f"label {path} holds the colour {rgb[row, column].tolist()} at row {row}, column {column} "
                f"({int(invalid.sum())} pixels of {len(strangers)} such colours), which no class has; "
                f"{self.remedy_of_values}"
            )
        return label

    def table(self, path: Path) -> np.ndarray:
        """The same mapping for every file."""
        return self.values.table

    def paths(self, split: Split, index: int) -> tuple[str, str]:
        """In the folders of the split, or in the one for all."""
        own = [
            where[split] if isinstance(where, dict) else where for where in (self.options.images, self.options.masks)
        ]
        stem = f"made_{index:05d}" if isinstance(self.options.images, dict) else f"{split}_{index:05d}"
        picture, mask = (f"{without_wildcards(pattern, stem)}.png" for pattern in own)
        return picture, mask

    def lists(self, stems: Mapping[Split, list[str]]) -> dict[str, list[str]]:
        """One list for each split, where the options name lists."""
        return {name: stems.get(split, []) for split, name in (self.options.lists or {}).items()}


def _only(files: Mapping[str, Path], stems: set[str]) -> dict[str, Path]:
    return {stem: path for stem, path in files.items() if stem in stems}
