"""DATASETS: name -> class of a data set. open_dataset() opens the one that a config names."""

from __future__ import annotations

from pathlib import Path

from trainer.config import DataConfig, UserError, unknown
from trainer.config.input_files import refuse_undecodable
from trainer.data.acdc import ACDC
from trainer.data.augmentations import train_size
from trainer.data.base import SegDataset
from trainer.data.camvid import CamVid
from trainer.data.cityscapes import Cityscapes
from trainer.data.nyuv2 import NYUv2
from trainer.data.packed import PackedSplit, pack, pack_splits, packed_fingerprint, silent
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
}

__all__ = [
    "DATASETS",
    "PackedSplit",
    "SegDataset",
    "check_data",
    "check_root",
    "dataset_class",
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
    check_options("data.options", dataset_class(config.name), config.options, skip=("root", "cache"))
    train_size(config)


def check_root(config: DataConfig, data_root: Path | None, cache: Path) -> None:
    """Raise UserError for a missing folder, a wrong layout, or images and labels without a partner.

    Takes about a second: no image is decoded, and a data set that generates its images does not do so here.
    """
    if data_root is not None or dataset_class(config.name).needs_root:
        dataset = open_dataset(config, data_root, cache)
        for split in ("train", "val"):
            dataset.pairs(split)


def known_fingerprints(config: DataConfig, data_root: Path | None, cache: Path) -> tuple[str, ...] | None:
    """The fingerprints of train and val where both are packed already; None where they are not, or cannot be listed."""
    try:
        if not dataset_class(config.name).is_here(data_root, cache, **config.options):
            return None
        dataset = open_dataset(config, data_root, cache)
        found = [packed_fingerprint(dataset, config, split, cache) for split in ("train", "val")]
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
    return dataset(data_root, cache=cache, **config.options)
