"""PackedSplit: a split, decoded and resized once into Arrow files that every run maps into memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from trainer.config import DataConfig
from trainer.data.base import SegDataset, cache_folder
from trainer.data.packs.pack_files import PackFiles
from trainer.data.packs.pack_rows import PICTURE, bytes_of, rows_of
from trainer.data.packs.packing import Say, refuse_without_room, write_missing
from trainer.data.pairing import Split, refuse_shared


def silent(text: str) -> None:
    """Say nothing."""


class PackedSplit:
    """The n samples of a split at `size` (H, W). Opening only maps the files; pixels are read on access."""

    def __init__(self, samples: Sequence[Path], natives: Sequence[Path] = ()) -> None:
        """`samples` and `natives` are as of `PackFiles.paths`."""
        rows = [row for path in samples for row in rows_of(path)]
        metadata = rows[0].schema.metadata
        self.size: tuple[int, int] = (int(metadata[b"height"]), int(metadata[b"width"]))
        self.channels = int(metadata.get(b"channels", 3))
        self.stems: list[str] = [row["stem"][0].as_py() for row in rows]
        self.class_counts: np.ndarray = np.sum([bytes_of(row["counts"]).view(np.int64) for row in rows], axis=0)
        self.sources: list[bytes] = [row["source"][0].as_py() for row in rows]
        """The digest of each pair's files."""
        self.pictures: list[bytes | None] = [
            row[PICTURE][0].as_py() if PICTURE in row.schema.names else None for row in rows
        ]
        """The digest of each image's pixels; None in a pack of an earlier version."""
        self.fingerprint: str = fingerprint(zip(self.stems, self.sources, strict=True))
        self._images = [bytes_of(row["image"]).reshape(*self.size, self.channels) for row in rows]
        self._labels = [bytes_of(row["label"]).reshape(self.size) for row in rows]
        own = [row for path in natives for row in rows_of(path)] or (
            [] if "native" not in rows[0].schema.names else rows
        )
        self._natives = [
            bytes_of(row["native"]).reshape(row["native_height"][0].as_py(), -1) if row["native"][0].is_valid else label
            for row, label in zip(own, self._labels, strict=bool(own))
        ]

    def __len__(self) -> int:
        return len(self.stems)

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """(n, H, W, C) uint8, by default RGB, a copy."""
        return np.stack([self._images[i] for i in indices])

    def sample(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, C) and label (H, W) as read-only views of the file."""
        return self._images[i], self._labels[i]

    def native_label(self, i: int) -> np.ndarray:
        """(h, w) uint8 at the label's own size, a read-only view of the file."""
        assert self._natives, "the split was packed without native labels: see `native` of pack()"
        return self._natives[i]


def pack(
    dataset: SegDataset, config: DataConfig, split: Split, cache: Path, *, native: bool = True, say: Say = silent
) -> PackedSplit:
    """`pack_splits` of one."""
    return pack_splits(dataset, config, {split: native}, cache, say)[split]


def pack_splits(
    dataset: SegDataset, config: DataConfig, wanted: Mapping[Split, bool], cache: Path, say: Say = silent
) -> dict[Split, PackedSplit]:
    """Splits at `config.size`, packed under `cache` unless they already are; `wanted` says of each whether labels at
    their own size are read.

    Packing reads and checks every image and label. Raises UserError where an image is in two splits or the disk has no
    room, before it reads one, and the data set's for a wrong file. A pack that is damaged is written again. Adding,
    removing or rewriting a source file causes a new pack.
    """
    folder = cache_folder(cache / "packed")
    pairs = {split: dataset.pairs(split) for split in wanted}
    refuse_shared(pairs)
    found = {
        split: PackFiles(config, split, own, folder, dataset.channels, dataset.code) for split, own in pairs.items()
    }
    refuse_without_room([(files, wanted[split]) for split, files in found.items()])
    for split, files in found.items():
        if files.missing(wanted[split]):
            write_missing(files, dataset, wanted[split], say)
    return {split: PackedSplit(*files.paths(wanted[split])) for split, files in found.items()}


def packed_fingerprint(dataset: SegDataset, config: DataConfig, split: Split, cache: Path) -> str | None:
    """The fingerprint of a split that has been packed since its files last changed, else None. Nothing is written."""
    files = PackFiles(config, split, dataset.pairs(split), cache / "packed", dataset.channels, dataset.code)
    return None if files.missing(native=False) else PackedSplit(*files.paths(native=False)).fingerprint


def fingerprint(sources: Iterable[tuple[str, bytes]]) -> str:
    """12 hex digits of a split's content, which enter run ids: of (stem, source digest) in the order of the stems.

    Folders, file times and the input size do not change it.
    """
    content = hashlib.sha256()
    for stem, source in sources:
        content.update(stem.encode() + b"\0" + source)
    return content.hexdigest()[:12]
