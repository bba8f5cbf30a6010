"""check_split(): read a whole split and list everything that is wrong with it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trainer.config import IGNORE, Scale, UserError
from trainer.data.base import SegDataset, refuse_unequal
from trainer.data.packs.pack_rows import is_damaged
from trainer.data.packs.packed import fingerprint
from trainer.data.packs.packing import picture_digest, source_digest
from trainer.data.pairing import Pair, Split, file_identity, in_two_splits
from trainer.data.returned import found_by, image_of, label_of


class Contents(NamedTuple):
    """Content and problems of a split."""

    pairs: int
    sizes: Counter[tuple[int, int]]  # (H, W) -> images
    counts: np.ndarray  # (K,) int64 pixels of each class
    ignored: int  # pixels
    conditions: Counter[str]  # condition -> pairs; 0 for a missing one
    fingerprint: str | None  # as in run ids; None when a problem would stop a run
    problems: list[str]
    pictures: dict[bytes, Path]  # digest of an image's pixels -> its file
    files: dict[Hashable, Path]  # `file_identity` of an image -> its file
    sums: np.ndarray  # (2, C) int64: of the images' values from 0 to 255, and of their squares
    pixels: int  # of the images

    @property
    def scale(self) -> Scale | None:
        """Mean and deviation of each channel, as of `data.normalize`; None where a channel is constant."""
        mean = self.sums[0] / max(self.pixels, 1)
        variance = self.sums[1] / max(self.pixels, 1) - mean**2
        if not self.pixels or (variance <= 0).any():
            return None
        rounded = ([round(float(x) / 255, 4) for x in values] for values in (mean, np.sqrt(variance)))
        return Scale.model_validate(dict(zip(("mean", "std"), rounded, strict=True)))


class _Read(NamedTuple):
    """One pair, as far as it is readable."""

    source: bytes
    size: tuple[int, int] | None
    counts: np.ndarray  # (256,) int64 pixels of each train id and IGNORE
    problems: list[str]
    picture: bytes | None  # digest of the pixels
    sums: np.ndarray  # as of Contents


def check_split(
    dataset: SegDataset,
    split: Split,
    *,
    subset: bool,
    progress: Callable[[int, int], None],
    before: Mapping[Split, Contents] = {},
) -> Contents:
    """Pair, decode and count a whole split. `progress(done, of)` is called after every pair.

    `subset` skips the comparison with the official counts, sizes and classes. An image that is a file of a split in
    `before` is a problem.
    """
    try:
        found = found_by(dataset, split)
    except UserError as error:
        nothing = np.zeros(len(dataset.classes), np.int64)
        return Contents(0, Counter(), nothing, 0, Counter(), None, [str(error)], {}, {}, _no_sums(dataset), 0)
    pairs = found.pairs()
    files = {file_identity(pair.image): pair.image for pair in pairs if pair.stem not in found.shared}
    shared = [in_two_splits(name, other.files, split, files) for name, other in before.items()]
    problems = [line for flaw in (*found.flaws(), *shared) for line in flaw.lines()]
    counts, sizes = np.zeros(256, np.int64), Counter[tuple[int, int]]()
    sources: list[tuple[str, bytes]] = []
    sums = _no_sums(dataset)
    pictures: dict[bytes, Path] = {}
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoding and reading release the GIL
        for done, read in enumerate(pool.map(lambda pair: _read(dataset, pair), pairs)):
            sources.append((pairs[done].stem, read.source))
            sizes.update([read.size] if read.size else [])
            counts += read.counts
            sums += read.sums
            problems += read.problems
            if read.picture is not None:
                pictures.setdefault(read.picture, pairs[done].image)
            progress(done + 1, len(pairs))
    if counts.any() and not counts[: len(dataset.classes)].any():
        problems.append(
            f"split {split} of {dataset.root} has no labelled pixel; correct the labels, which may have been exported "
            "with other class numbers"
        )
    conditions = Counter(dict.fromkeys(dataset.official.conditions, 0))  # a missing one counts as 0
    conditions.update(name for pair in pairs if (name := dataset.condition_of(pair.stem)) is not None)
    contents = Contents(
        pairs=len(pairs),
        sizes=sizes,
        counts=counts[: len(dataset.classes)],
        ignored=int(counts[IGNORE]),
        conditions=conditions,
        fingerprint=None if problems else fingerprint(sources),
        problems=problems,
        pictures=pictures,
        files=files,
        sums=sums,
        pixels=sum(height * width * images for (height, width), images in sizes.items()),
    )
    return contents if subset else contents._replace(problems=problems + _unofficial(dataset, split, contents))


def _read(dataset: SegDataset, pair: Pair) -> _Read:
    problems: list[str] = []
    image = label = None
    try:
        image = image_of(dataset, pair.image)
    except UserError as error:
        problems.append(str(error))
    try:
        label = label_of(dataset, pair.label)
    except UserError as error:
        problems.append(str(error))
    if image is not None and label is not None:
        try:
            refuse_unequal(pair, image, label)
        except UserError as error:
            problems.append(str(error))
    source = b"" if problems else source_digest(pair)
    size = None if image is None else (image.shape[0], image.shape[1])
    counts = np.bincount(label.ravel(), minlength=256) if label is not None else np.zeros(256, np.int64)
    picture = None if image is None else picture_digest(image)
    return _Read(source, size, counts, problems, picture, _no_sums(dataset) if image is None else _sums(image))


def _no_sums(dataset: SegDataset) -> np.ndarray:
    return np.zeros((2, dataset.channels), np.int64)


def _sums(image: np.ndarray) -> np.ndarray:
    """(2, C) int64 of an image (H, W, C): exact, so that the order of files does not matter."""
    values = np.arange(256, dtype=np.int64)
    bins = [np.bincount(image[..., c].ravel(), minlength=256) for c in range(image.shape[2])]
    return np.array([[int(count @ values**power) for count in bins] for power in (1, 2)], np.int64)


def damaged_packs(name: str, cache: Path) -> list[str]:
    """The packed files of a data set below `cache` whose bytes have changed since they were written."""
    return [
        f"packed file {path} is damaged; delete it, and the next run packs it again"
        for path in sorted((cache / "packed").glob(f"{name}-*.arrow"))
        if is_damaged(path)
    ]


def leaks(found: Mapping[Split, Contents]) -> list[str]:
    """The images that a split before, train first, has too, pixel by pixel, in files of their own."""
    return [
        f"{path} is the same picture as {found[before].pictures[digest]} in {before}, so that {split} would measure "
        "what was learnt by heart; take one of them out"
        for before, split in combinations(found, 2)
        for digest, path in found[split].pictures.items()
        if digest in found[before].pictures
        and file_identity(found[before].pictures[digest]) != file_identity(path)  # told by check_split
    ]


def _unofficial(dataset: SegDataset, split: Split, contents: Contents) -> list[str]:
    """The differences between a split and the official one."""
    official = dataset.official
    remedy = "complete the folder, or give --subset"
    problems = []
    height, width = official.size or (0, 0)
    if official.pairs(split) and contents.pairs != official.pairs(split):
        problems.append(f"split {split}: {contents.pairs} of {official.pairs(split)} (official); {remedy}")
    for condition, counts in official.conditions.items():
        have, want = contents.conditions[condition], counts[split == "val"]
        if split != "test" and have != want:
            problems.append(f"split {split}, {condition}: {have} of {want} (official); {remedy}")
    for size, images in sorted(contents.sizes.items()):
        if official.size is not None and size != official.size:
            problems.append(
                f"split {split}: {images} images are {size[1]}x{size[0]}, officially {width}x{height} "
                "(width x height); use the original files, or give --subset"
            )
    absent = [name for name, pixels in zip(dataset.classes, contents.counts, strict=True) if not pixels]
    if absent and contents.counts.any():
        problems.append(
            f"split {split}: no pixel of {', '.join(absent)}; the labels may have been exported with other class "
            "numbers: correct them, or give --subset"
        )
    return problems
