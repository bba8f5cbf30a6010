"""DATASETS: name -> class of a data set. open_dataset() opens the one that a config names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trainer.config import DataConfig, Scale, UserError, shown, unknown
from trainer.config.blame import blaming, named
from trainer.config.input_files import refuse_undecodable
from trainer.data.acdc import ACDC
from trainer.data.augmentations import train_size
from trainer.data.base import Facts, SegDataset
from trainer.data.camvid import CamVid
from trainer.data.cityscapes import Cityscapes
from trainer.data.nyuv2 import NYUv2
from trainer.data.own_folder.folder import Folder
from trainer.data.packs.packed import PackedSplit, pack, pack_splits, packed_fingerprint, silent
from trainer.data.pairing import Split, refuse_shared
from trainer.data.scenes import Scenes
from trainer.data.voc2012 import VOC2012
from trainer.options import check_options

DATASETS: dict[str, type[SegDataset]] = {
    "cityscapes": Cityscapes,
    "acdc": ACDC,
    "nyuv2": NYUv2,
    "voc2012": VOC2012,
    "camvid": CamVid,
    "scenes": Scenes,
    "folder": Folder,
}

__all__ = [
    "DATASETS",
    "Facts",
    "PackedSplit",
    "SegDataset",
    "check_data",
    "check_root",
    "check_splits",
    "dataset_class",
    "facts_of",
    "known_fingerprints",
    "open_dataset",
    "pack",
    "pack_splits",
    "silent",
    "train_size",
]


def dataset_class(name: str) -> type[SegDataset]:
    """The class of a data set's name. Raises UserError for an unknown one."""
    if name not in DATASETS:
        raise unknown("data set", name, DATASETS)
    return DATASETS[name]


def check_data(config: DataConfig) -> None:
    """Raise UserError for an unknown data set, option or step of augmentation; needs no folder."""
    channels = facts_of(config).channels
    scale = config.normalize
    wanted = len(scale.mean) if isinstance(scale, Scale) else 3 if scale == "imagenet" else channels
    if channels != wanted:
        raise UserError(
            f"data.normalize is of {wanted} channels but images of {config.name} have {channels}; set it to what "
            "`transkd data check` measures, or to unit"
        )
    train_size(config)


def facts_of(config: DataConfig) -> Facts:
    """Classes, colours and channels of a data section; needs no folder. Raises UserError for a wrong name or option."""
    dataset = dataset_class(config.name)
    check_options("data.options", dataset, config.options, skip=("root", "cache"))
    with blaming():
        facts = dataset.facts(**config.options)
    if not isinstance(facts, Facts):
        raise UserError(f"{named(dataset)}facts() must give Facts (trainer.data.base), but gave {facts!r}; correct it")
    for what, listed in (("classes", facts.classes), ("palette", facts.palette)):
        if not isinstance(listed, tuple | list) or len(listed) != len(facts.classes):
            raise UserError(
                f"{named(dataset)}the data set '{config.name}' must have classes, and a colour of each in palette, but "
                f"its {what} is {' '.join(shown(listed).split())}; write tuples of one length"
            )
    return facts


def check_splits(name: str, have: Sequence[Split], wanted: Sequence[Split], asked_by: str) -> None:
    """Raise UserError where a data set lacks a split with labels; `asked_by` is the option that names it."""
    for split in wanted:
        if split not in have:
            raise UserError(
                f"{asked_by}: data set '{name}' has no labelled split {split}, only {', '.join(have)}; name another"
            )


def check_root(config: DataConfig, data_root: Path | None, cache: Path, splits: Sequence[Split] = ("val",)) -> None:
    """Raise UserError for a missing folder, a wrong layout, images and labels without a partner, or an image that is in
    two splits.

    `splits` are those of `eval.splits`. Takes about a second: no image is decoded but a few of a user's own folder, and
    a data set that generates its images does not do so here.
    """
    if data_root is not None or dataset_class(config.name).needs_root:
        dataset = open_dataset(config, data_root, cache)
        check_splits(config.name, dataset.splits, splits, "eval.splits")
        with blaming():
            pairs = {split: dataset.pairs(split) for split in ("train", *splits)}
            refuse_shared(pairs)
            for found in pairs.values():
                dataset.glance(found)


def known_fingerprints(
    config: DataConfig, data_root: Path | None, cache: Path, splits: Sequence[Split] = ("val",)
) -> tuple[str, ...] | None:
    """The fingerprints of train and of `splits` where all are packed already; None where not, or not to be listed.
    Raises UserError for what the code of a plugin raises."""
    with blaming():
        try:
            if not dataset_class(config.name).is_here(data_root, cache, **config.options):
                return None
            dataset = open_dataset(config, data_root, cache)
            found = [packed_fingerprint(dataset, config, split, cache) for split in ("train", *splits)]
        except UserError:
            return None
    return None if None in found else tuple(name for name in found if name)


def open_dataset(config: DataConfig, data_root: Path | None, cache: Path) -> SegDataset:
    """The data set of a config. Raises UserError for an unknown name or option, or a missing folder."""
    check_data(config)
    dataset = dataset_class(config.name)
    if data_root is None and dataset.needs_root:
        raise UserError(
            f"data set '{config.name}' needs a folder; give --data-root FOLDER or data_roots in the cluster spec"
        )
    if data_root is not None:
        refuse_undecodable(data_root)
        if not data_root.is_dir():
            raise UserError(f"data set '{config.name}': no folder {data_root}; correct --data-root or data_roots")
    with blaming():
        return dataset(data_root, cache=cache, **config.options)
