"""Pair the images and labels of a split by stem, and report files without a partner."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from trainer.config import UserError, read_text
from trainer.config.input_files import refuse_undecodable
from trainer.data.images import ENDINGS

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

EXPECTED = "; expected the layout "
"""Separates, in a message, the problem from the expected layout."""

_NAMED = 3  # items that a one-line summary shows

_PATH = re.compile(rf".*?({'|'.join(map(re.escape, ENDINGS))})(?=\s|$)", re.IGNORECASE)
"""The path of the first image of a line."""


class Pair(NamedTuple):
    """The files of one image and its label."""

    stem: str
    image: Path
    label: Path


class Flaw(NamedTuple):
    """One kind of problem in a split, with all files or stems that have it."""

    what: str
    items: list[str]
    remedy: str

    def summary(self) -> str:
        """One line for all items, which names the first few."""
        more = len(self.items) - _NAMED
        return self._about(", ".join(self.items[:_NAMED]) + (f" and {more} more" if more > 0 else ""))

    def lines(self) -> list[str]:
        """One line per item."""
        return [self._about(item) for item in self.items]

    def _about(self, items: str) -> str:
        return f"{self.what}: {items}; {self.remedy}"


class Found(NamedTuple):
    """The image and label files of a split by stem, not yet paired."""

    images: Mapping[str, Path]
    labels: Mapping[str, Path]
    where: Path  # the folder or list that defines the split
    lost: tuple[str, ...] = ()  # stems in the list that have neither image nor label
    shared: tuple[str, ...] = ()  # stems in the lists of both splits
    lists: Mapping[Split, Path] = {}  # the lists, in layouts that have them
    more: tuple[Flaw, ...] = ()  # what else is wrong

    def pairs(self) -> list[Pair]:
        """The stems with image and label, sorted."""
        both = sorted(set(self.images) & set(self.labels))
        return [Pair(stem, self.images[stem], self.labels[stem]) for stem in both]

    def flaws(self) -> list[Flaw]:
        """All problems that can be found without opening a file."""
        both = " and ".join(str(path) for path in self.lists.values())
        flaws = [
            _unpaired("image", "label", self.images, self.labels),
            _unpaired("label", "image", self.labels, self.images),
            Flaw(
                f"listed in {self.where} but without image and label",
                list(self.lost),
                "complete the folders or correct the list",
            ),
            Flaw(f"listed for both train and val, in {both}", list(self.shared), "take it out of the list of train"),
            *self.more,
        ]
        if not (self.images or self.labels or self.lost):
            flaws.append(Flaw("no images below", [str(self.where)], "check the folder given as data root"))
        return [flaw for flaw in flaws if flaw.items]


def file_identity(path: Path) -> Hashable:
    """Equal for two paths that lead to one file, by symbolic or hard links too; of a missing file, its path."""
    try:
        found = path.stat()
    except OSError:
        return path
    return found.st_dev, found.st_ino


def in_two_splits(
    before: Split, earlier: Mapping[Hashable, Path], split: Split, later: Mapping[Hashable, Path]
) -> Flaw:
    """The images of `split` that are the same files as some of `before`; both by `file_identity`."""
    both = [(path, earlier[which]) for which, path in later.items() if which in earlier]
    return Flaw(
        f"image in both {before} and {split}, so that {split} would measure what was learnt by heart",
        [str(path) if path == other else f"{path} (the same file as {other})" for path, other in both],
        "leave each image in one of them",
    )


def refuse_shared(splits: Mapping[Split, Sequence[Pair]]) -> None:
    """Raise UserError where an image of one split is the same file as one of another. No file is opened."""
    files = {split: {file_identity(pair.image): pair.image for pair in pairs} for split, pairs in splits.items()}
    for before, split in combinations(files, 2):
        if (flaw := in_two_splits(before, files[before], split, files[split])).items:
            raise UserError(flaw.summary())


def folder(path: Path, layout: str) -> Path:
    """`path`. Raises UserError with the expected layout unless it is a folder."""
    if not path.is_dir():
        raise UserError(f"no folder {path}{EXPECTED}{layout}")
    return path


def by_stem(base: Path, *endings: str) -> dict[str, Path]:
    """Stem -> file, for the files directly in a folder with one of the endings, in any case.

    Raises UserError when two files have the same stem, and for a name that is not UTF-8.
    """
    return _by_stem(base, "*", "", endings)


def by_suffix(base: Path, suffix: str, *endings: str) -> dict[str, Path]:
    """FOLDER/STEM -> file, for files named STEM + suffix + ending in the subfolders. Raises UserError as `by_stem`.

    With the folder, equal stems in two cities stay distinct. A missing `base` has no files.
    """
    return _by_stem(base, "*/*", suffix, endings)


def _by_stem(base: Path, pattern: str, suffix: str, endings: tuple[str, ...]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(base.glob(pattern)):
        name = path.relative_to(base)
        if path.suffix.lower() in endings and path.stem.endswith(suffix) and not is_hidden(name):
            refuse_undecodable(path)
            stem = composed(name.with_suffix("").as_posix().removesuffix(suffix))
            if stem in found:
                raise UserError(f"{found[stem]} and {path} have the same stem; keep one of them")
            found[stem] = path
    return found


def is_hidden(path: Path) -> bool:
    """Whether a file, or a folder above it, is hidden: no data but a system's notes, as macOS's `._x.png` of x.png.

    `path` is relative to the folder of the data, which may be hidden itself.
    """
    return any(part.startswith(".") for part in path.parts)


def composed(name: str) -> str:
    """The name with accented letters as one character each (NFC); macOS writes files' names with two."""
    return unicodedata.normalize("NFC", name)


def listed(
    split: Split, lists: Mapping[Split, Path], images: Mapping[str, Path], labels: Mapping[str, Path], layout: str
) -> Found:
    """The files of a split by its list, when both splits share folders. Raises UserError for a bad list."""
    for path in lists.values():
        if not path.exists():
            raise UserError(f"cannot read the list {path}{EXPECTED}{layout}")
    known = {stem: stem for stem in (*images, *labels)}
    stems = {which: read_list(path, known) for which, path in lists.items()}
    mine = stems[split]
    return Found(
        {stem: images[stem] for stem in mine if stem in images},
        {stem: labels[stem] for stem in mine if stem in labels},
        lists[split],
        lost=tuple(stem for stem in mine if stem not in images and stem not in labels),
        shared=tuple(sorted(set(stems["train"]) & set(stems["val"]))),
        lists=lists,
    )


def by_name(stems: set[str]) -> dict[str, str]:
    """Whole stem, or its last part where that is of one stem only -> stem: what a line of a list may call it."""
    found: dict[str, str] = {}
    twice: set[str] = set()
    for stem in sorted(stems):
        last = PurePosixPath(stem).name
        twice |= {last} if last in found else set()
        found[last] = stem
    return {name: stem for name, stem in found.items() if name not in twice} | {stem: stem for stem in stems}


def read_list(path: Path, known: Mapping[str, str]) -> list[str]:
    """The stems of a list; `known` has the stem of each name by which a line may call it.

    A line is, or begins with, a stem or the path of an image, of which the end decides. Both may hold blanks. Raises
    UserError for a list that cannot be read, or names a stem twice.
    """
    stems: dict[str, None] = {}
    for line in read_text(path).splitlines():
        if line.strip():
            stem = _named(composed(line.strip().replace("\\", "/")), known)
            if stem in stems:
                raise UserError(f"{path} names {stem} twice; remove one of the lines")
            stems[stem] = None
    return list(stems)


def _named(line: str, known: Mapping[str, str]) -> str:
    """The known stem that a line of a list names, or what it calls an unknown one.

    A name with blanks goes before the first word, and the first word before the end of a path with blanks in it: of
    `left/1.png right/2.png` it is the left image.
    """
    path = _PATH.match(line)
    whole, first = _ends(path[0] if path else line), _ends(line.split()[0])
    ends = [*(end for end in whole if " " in end), *first, *whole]
    return next((known[end] for end in ends if end in known), (whole or [line])[0])


def _ends(path: str) -> list[str]:
    """A path without an image's ending, and its parts from each folder on: a/b/c, b/c, c."""
    name = PurePosixPath(path)
    parts = (name.with_suffix("") if name.suffix.lower() in ENDINGS else name).parts
    return ["/".join(parts[at:]).lstrip("/") for at in range(len(parts)) if parts[at] != "/"]


def _unpaired(kind: str, other: str, have: Mapping[str, Path], want: Mapping[str, Path]) -> Flaw:
    files = [str(have[stem]) for stem in sorted(set(have) - set(want))]
    return Flaw(f"{kind} without its {other}", files, f"add the {other} or remove the {kind}")
