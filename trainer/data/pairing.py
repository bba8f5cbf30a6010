"""Pairing by stem: the images and labels of a split, and all that keeps them from being pairs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from trainer.config import UserError

Split = Literal["train", "val"]

EXPECTED = "; expected the layout "
"""Between what is wrong with a folder and how it should look."""

_NAMED = 3  # items of a flaw that its one-line summary shows


class Pair(NamedTuple):
    """One image and its label, on disk."""

    stem: str
    image: Path
    label: Path


class Flaw(NamedTuple):
    """One kind of mistake in a split, and every file or stem that makes it."""

    what: str
    items: list[str]
    remedy: str

    def summary(self) -> str:
        """One line about them all, which names the first."""
        more = len(self.items) - _NAMED
        return self._about(", ".join(self.items[:_NAMED]) + (f" and {more} more" if more > 0 else ""))

    def lines(self) -> list[str]:
        """One line about each."""
        return [self._about(item) for item in self.items]

    def _about(self, items: str) -> str:
        return f"{self.what}: {items}; {self.remedy}"


class Found(NamedTuple):
    """The halves of a split by stem, before it is known that they fit together."""

    images: Mapping[str, Path]
    labels: Mapping[str, Path]
    where: Path  # the folder or list that says what belongs to the split
    lost: tuple[str, ...] = ()  # stems that the list names, with neither half there
    shared: tuple[str, ...] = ()  # stems that the lists of both splits name
    lists: Mapping[Split, Path] = {}  # those lists, where the layout has any

    def pairs(self) -> list[Pair]:
        """What has both halves, sorted by stem."""
        both = sorted(set(self.images) & set(self.labels))
        return [Pair(stem, self.images[stem], self.labels[stem]) for stem in both]

    def flaws(self) -> list[Flaw]:
        """Everything that is wrong before a file is opened."""
        both = " and ".join(str(path) for path in self.lists.values())
        flaws = [
            _unpaired("image", "label", self.images, self.labels),
            _unpaired("label", "image", self.labels, self.images),
            Flaw(
                f"{self.where} names what has neither image nor label",
                list(self.lost),
                "complete the folders or correct the list",
            ),
            Flaw(f"listed for both train and val, in {both}", list(self.shared), "take it out of the list of train"),
        ]
        if not (self.images or self.labels or self.lost):
            flaws.append(Flaw("no images below", [str(self.where)], "check the folder given as data root"))
        return [flaw for flaw in flaws if flaw.items]


def folder(path: Path, layout: str) -> Path:
    """`path` if it is a folder, else a UserError that shows the layout expected."""
    if not path.is_dir():
        raise UserError(f"no folder {path}{EXPECTED}{layout}")
    return path


def by_stem(base: Path, *endings: str) -> dict[str, Path]:
    """Stem -> file, of the files directly in a folder. Raises UserError where two files have one stem."""
    found: dict[str, Path] = {}
    for path in sorted(base.iterdir()):
        if path.suffix in endings:
            if path.stem in found:
                raise UserError(f"{found[path.stem]} and {path} have one stem; keep one of them")
            found[path.stem] = path
    return found


def by_suffix(base: Path, suffix: str) -> dict[str, Path]:
    """FOLDER/STEM -> file, of the files one folder below: equal numbers in two cities stay apart."""
    return {str(path.relative_to(base)).removesuffix(suffix): path for path in base.glob(f"*/*{suffix}")}


def listed(
    split: Split, lists: Mapping[Split, Path], images: Mapping[str, Path], labels: Mapping[str, Path], layout: str
) -> Found:
    """What the list of a split names, of the halves in folders that both splits share. UserError for a bad list."""
    stems = {which: _read_list(path, layout) for which, path in lists.items()}
    mine = stems[split]
    return Found(
        {stem: images[stem] for stem in mine if stem in images},
        {stem: labels[stem] for stem in mine if stem in labels},
        lists[split],
        lost=tuple(stem for stem in mine if stem not in images and stem not in labels),
        shared=tuple(sorted(set(stems["train"]) & set(stems["val"]))),
        lists=lists,
    )


def _read_list(path: Path, layout: str) -> list[str]:
    """The stems of a list: a line is a stem, or begins with the path of an image, as prepared copies have it."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        raise UserError(f"cannot read the list {path}{EXPECTED}{layout}") from None
    stems: dict[str, None] = {}
    for line in lines:
        if line.strip():
            name = line.split()[0].rpartition("/")[2]
            stem = name.removesuffix(".jpg").removesuffix(".png")
            if stem in stems:
                raise UserError(f"{path} names {stem} twice; remove one of the lines")
            stems[stem] = None
    return list(stems)


def _unpaired(kind: str, other: str, have: Mapping[str, Path], want: Mapping[str, Path]) -> Flaw:
    files = [str(have[stem]) for stem in sorted(set(have) - set(want))]
    return Flaw(f"{kind} without its {other}", files, f"add the {other} or remove the {kind}")
