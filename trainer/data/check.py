"""check_split(): read a split before a training does, and say everything that is wrong with it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from trainer.config import IGNORE, UserError
from trainer.data.base import SegDataset, refuse_unequal
from trainer.data.packed import fingerprint, source_digest
from trainer.data.pairing import Pair, Split


class Contents(NamedTuple):
    """What a split holds, and what is wrong with it."""

    pairs: int
    sizes: Counter[tuple[int, int]]  # (H, W) -> images
    counts: np.ndarray  # (K,) int64 pixels of each class
    ignored: int  # pixels
    conditions: Counter[str]  # condition -> pairs, 0 of one that is missing
    fingerprint: str | None  # as it enters a run's identity; None where a run would be refused
    problems: list[str]


class _Read(NamedTuple):
    """One pair, as far as it can be read."""

    source: bytes
    size: tuple[int, int] | None
    counts: np.ndarray  # (256,) int64 pixels of each train id and IGNORE
    problems: list[str]


def check_split(dataset: SegDataset, split: Split, *, subset: bool, progress: Callable[[int, int], None]) -> Contents:
    """Pair, decode and count a whole split. `progress(done, of)` is told of every pair.

    `subset` leaves the official counts, sizes and classes out of what is asked of it.
    """
    try:
        found = dataset.find(split)
    except UserError as error:
        return Contents(0, Counter(), np.zeros(len(dataset.classes), np.int64), 0, Counter(), None, [str(error)])
    problems = [line for flaw in found.flaws() for line in flaw.lines()]
    pairs = found.pairs()
    counts, sizes = np.zeros(256, np.int64), Counter[tuple[int, int]]()
    sources: list[tuple[str, bytes]] = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoding and reading leave the interpreter's lock
        for done, read in enumerate(pool.map(lambda pair: _read(dataset, pair), pairs)):
            sources.append((pairs[done].stem, read.source))
            sizes.update([read.size] if read.size else [])
            counts += read.counts
            problems += read.problems
            progress(done + 1, len(pairs))
    conditions = Counter(dict.fromkeys(dataset.official.conditions, 0))  # one that is missing is told as 0
    conditions.update(name for pair in pairs if (name := dataset.condition_of(pair.stem)) is not None)
    contents = Contents(
        pairs=len(pairs),
        sizes=sizes,
        counts=counts[: len(dataset.classes)],
        ignored=int(counts[IGNORE]),
        conditions=conditions,
        fingerprint=None if problems else fingerprint(sources),
        problems=problems,
    )
    return contents if subset else contents._replace(problems=problems + _unofficial(dataset, split, contents))


def _read(dataset: SegDataset, pair: Pair) -> _Read:
    problems: list[str] = []
    image = label = None
    try:
        image = dataset.read_image(pair.image)
    except UserError as error:
        problems.append(str(error))
    try:
        label = dataset.read_label(pair.label)
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
    return _Read(source, size, counts, problems)


def _unofficial(dataset: SegDataset, split: Split, contents: Contents) -> list[str]:
    """Where a split differs from the official one."""
    official = dataset.official
    remedy = "complete the folder, or say --subset"
    problems = []
    height, width = official.size or (0, 0)
    if contents.pairs != official.pairs(split):
        problems.append(f"split {split}: {contents.pairs} of {official.pairs(split)} (official); {remedy}")
    for condition, counts in official.conditions.items():
        have, want = contents.conditions[condition], counts[split == "val"]
        if have != want:
            problems.append(f"split {split}, {condition}: {have} of {want} (official); {remedy}")
    for size, images in sorted(contents.sizes.items()):
        if official.size is not None and size != official.size:
            problems.append(
                f"split {split}: {images} images are {size[1]}x{size[0]}, officially {width}x{height} "
                "(width x height); take the originals, or say --subset"
            )
    absent = [name for name, pixels in zip(dataset.classes, contents.counts, strict=True) if not pixels]
    if absent and contents.pairs:
        problems.append(
            f"split {split}: no pixel of {', '.join(absent)}; where a whole split lacks a class, its labels may have "
            "been exported with other numbers, so look at them, or say --subset"
        )
    return problems
