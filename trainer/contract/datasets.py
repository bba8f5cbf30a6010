"""The contract of a data set, kept on a tiny one in its layout: each check takes a Made and raises ContractError."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trainer.config import IGNORE, DataConfig
from trainer.contract.promise import Checks, require
from trainer.data import SegDataset, dataset_class, facts_of, open_dataset, pack
from trainer.data.check import check_split
from trainer.data.make import make_tree
from trainer.data.pairing import Split
from trainer.data.returned import paths_of, table_of

SPLITS: tuple[Split, ...] = ("train", "val")
RESERVED = {"full", "paper", "iou", "miou", "classes_present"}
"""Names of metrics, which no condition may have."""
PAIRS = 4
SIZE = (64, 128)


@dataclass(frozen=True)
class Made:
    """A data set and the folder of a tiny one in its layout, PAIRS a split."""

    name: str
    root: Path
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> DataConfig:
        """The data section that names it."""
        return DataConfig(name=self.name, size=(32, 64), options=dict(self.options))

    @property
    def dataset(self) -> SegDataset:
        """The data set of the folder."""
        return open_dataset(self.config, self.root, self.cache)

    @property
    def cache(self) -> Path:
        """A folder beside it."""
        return self.root.parent / "cache"


@contextmanager
def made(name: str) -> Iterator[Made]:
    """A data set in a temporary folder, made as by `data make`. Raises ContractError for what cannot be made."""
    with tempfile.TemporaryDirectory() as folder:
        one = Made(name, Path(folder) / name)
        tells_classes_apart(one)
        dataset = dataset_class(name)(one.root, cache=Path(folder))
        _ignores_255(dataset, one.root / paths_of(dataset, "train", 0)[1])
        make_tree(dataset, train=PAIRS, val=PAIRS, seed=0, size=SIZE)
        yield one


def tells_classes_apart(one: Made) -> None:
    """Every class has a name and a colour of its own."""
    kind = facts_of(one.config)
    for what, listed in (("name", kind.classes), ("colour", kind.palette)):
        require(len(set(listed)) == len(listed), f"two classes have one {what}; give each its own")
    count = len(kind.classes)
    require(1 < count < 254, f"it needs 2 to 253 classes, but has {count}")
    require(len(kind.palette) == count, f"it has {count} classes, but {len(kind.palette)} colours; give each class one")


def reads_what_it_made(one: Made) -> None:
    """What is written in its layout is found, paired, read and without a problem."""
    dataset = one.dataset
    for split in SPLITS:
        found = check_split(dataset, split, subset=True, progress=lambda done, of: None)
        require(not found.problems, f"of pairs made in its own layout {split} has a problem: {_first(found.problems)}")
        require(found.pairs == PAIRS, f"{split} has {PAIRS} pairs in its own layout, but it finds {found.pairs}")
        same = [pair.stem for pair in dataset.pairs(split)] == [pair.stem for pair in one.dataset.pairs(split)]
        require(same, f"two looks at {split} find different pairs; list files in a fixed order")


def _first(problems: list[str]) -> str:
    return problems[0] if problems else ""


def packs_images_and_labels(one: Made) -> None:
    """Images are (H, W, 3) uint8; labels (H, W) uint8 of classes and IGNORE; the fingerprint is that of the files."""
    dataset, config = one.dataset, one.config
    for split in SPLITS:
        packed = pack(dataset, config, split, one.cache)
        listed = check_split(dataset, split, subset=True, progress=lambda done, of: None).fingerprint
        require(packed.fingerprint == listed, f"the fingerprint of {split} is another when it is packed than checked")
        for i in range(len(packed)):
            image, label = packed.sample(i)
            shapes = (image.shape, label.shape)
            require(shapes == ((32, 64, 3), (32, 64)), f"image and label of {split} have shapes {shapes}")
            strange = set(np.unique(label).tolist()) - {*range(len(dataset.classes)), IGNORE}
            require(not strange, f"a label holds {sorted(strange)}, which are no classes; let table() map them")


def ignores_255(one: Made) -> None:
    """The value 255 of a label file is ignored and no class."""
    for pair in one.dataset.pairs("train"):
        _ignores_255(one.dataset, pair.label)


def _ignores_255(dataset: SegDataset, label: Path) -> None:
    value = int(table_of(dataset, label)[IGNORE])
    require(value == IGNORE, f"table()[255] must be {IGNORE}, ignored, but is {value}; make it by label_table()")


def parts_by_condition(one: Made) -> None:
    """Conditions part the pictures of val, and have the name of no other metric."""
    dataset = one.dataset
    stems = [pair.stem for pair in dataset.pairs("val")]
    found = dataset.conditions(stems)
    members = sorted(int(i) for indices in found.values() for i in indices)
    whole = not found or members == list(range(len(stems)))
    require(whole, "its conditions must part the pictures: condition_of() gives each picture one, or none at all")
    clash = set(found) & (RESERVED | set(dataset.classes))
    require(not clash, f"its condition {', '.join(sorted(clash))} has the name of a metric or class; rename it")


def states_its_official_sizes(one: Made) -> None:
    """`official` has the number of pairs of both splits, or of none where it is not known."""
    official = one.dataset.official
    counts = {split: official.pairs(split) for split in SPLITS}
    for split, count in counts.items():
        require(count > 0 or not any(counts.values()), f"official has {count} pairs in {split}; write how many")


CHECKS: Checks[Made] = {
    "each class has a name and a colour": tells_classes_apart,
    "reads pairs made in its own layout": reads_what_it_made,
    "images and labels have shape, dtype and classes": packs_images_and_labels,
    "255 is ignored": ignores_255,
    "conditions part the pictures": parts_by_condition,
    "official sizes": states_its_official_sizes,
}
