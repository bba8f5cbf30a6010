"""PackedSplit: a split, decoded and resized once into an Arrow file that every run maps into memory."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from trainer.config import IGNORE, DataConfig, digest
from trainer.config.input_files import check_regular
from trainer.data.base import SegDataset, cache_folder
from trainer.data.pairing import Pair, Split
from trainer.files.atomic import replacing

PACK_VERSION = 2
"""Raised by hand when the file's columns, or how they are computed, change."""

_CHUNK = 32  # pairs decoded before they are written: a few hundred MB at Cityscapes' full size


class PackedSplit:
    """The n samples of a split at `size` (H, W). Opening only maps the file; pixels are read on access."""

    def __init__(self, path: Path) -> None:
        batches = pa.ipc.open_file(pa.memory_map(str(path)))
        metadata = batches.schema.metadata
        self.size: tuple[int, int] = (int(metadata[b"height"]), int(metadata[b"width"]))
        rows = [batches.get_batch(i) for i in range(batches.num_record_batches)]
        self.stems: list[str] = [row["stem"][0].as_py() for row in rows]
        self.class_counts: np.ndarray = np.sum([_bytes(row["counts"]).view(np.int64) for row in rows], axis=0)
        self.fingerprint: str = fingerprint(zip(self.stems, (row["source"][0].as_py() for row in rows), strict=True))
        self._images = [_bytes(row["image"]).reshape(*self.size, 3) for row in rows]
        self._labels = [_bytes(row["label"]).reshape(self.size) for row in rows]
        self._natives = [
            _bytes(row["native"]).reshape(row["native_height"][0].as_py(), -1) if row["native"][0].is_valid else label
            for row, label in zip(rows, self._labels, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.stems)

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """(n, H, W, 3) uint8 RGB, a copy."""
        return np.stack([self._images[i] for i in indices])

    def sample(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, 3) and label (H, W) as read-only views of the file."""
        return self._images[i], self._labels[i]

    def native_label(self, i: int) -> np.ndarray:
        """(h, w) uint8 at the label's own size, a read-only view of the file."""
        return self._natives[i]


def pack(dataset: SegDataset, config: DataConfig, split: Split, cache: Path) -> PackedSplit:
    """The split at `config.size`, packed under `cache` unless it already is; a lock keeps processes from packing twice.

    Packing reads and checks every image and label; raises the data set's UserError and then writes no file.
    Adding, removing or rewriting a source file causes a new pack.
    """
    pairs = dataset.pairs(split)
    path = _file(config, split, pairs, cache_folder(cache / "packed"))
    if not path.exists():
        with _locked(path.with_suffix(".lock")):
            if not path.exists():
                _write(path, dataset, pairs, config.size)
    return PackedSplit(path)


def packed_fingerprint(dataset: SegDataset, config: DataConfig, split: Split, cache: Path) -> str | None:
    """The fingerprint of a split that has been packed since its files last changed, else None. Nothing is written."""
    path = _file(config, split, dataset.pairs(split), cache / "packed")
    return PackedSplit(path).fingerprint if path.exists() else None


def _file(config: DataConfig, split: Split, pairs: list[Pair], folder: Path) -> Path:
    asked = config.model_dump(mode="json", include={"name", "options", "size"})
    key = digest({"version": PACK_VERSION, "asked": asked, "split": split, "files": _listing(pairs)})
    return folder / f"{config.name}-{split}-{key}.arrow"


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 at `size` by PIL's antialiased bilinear filter, as in the reference."""
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))


def resize_label(label: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8 at `size` by nearest neighbour."""
    return np.asarray(Image.fromarray(label).resize(size[::-1], Image.Resampling.NEAREST))


def _listing(pairs: list[Pair]) -> list[list[Any]]:
    status = [(pair.stem, path.resolve(), path.stat()) for pair in pairs for path in (pair.image, pair.label)]
    return [[stem, str(path), found.st_size, found.st_mtime_ns] for stem, path, found in status]


def source_digest(pair: Pair) -> bytes:
    """32 bytes: the sha256 of the image file's bytes followed by the label file's bytes."""
    for path in (pair.image, pair.label):
        check_regular(path)
    source = hashlib.sha256(pair.image.read_bytes())
    source.update(pair.label.read_bytes())
    return source.digest()


def fingerprint(sources: Iterable[tuple[str, bytes]]) -> str:
    """12 hex digits of a split's content, which enter run ids: of (stem, source digest) in the order of the stems.

    Folders, file times and the input size do not change it.
    """
    content = hashlib.sha256()
    for stem, source in sources:
        content.update(stem.encode() + b"\0" + source)
    return content.hexdigest()[:12]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an advisory lock; it ends with its process."""
    with path.open("w", encoding="utf-8") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _write(path: Path, dataset: SegDataset, pairs: list[Pair], size: tuple[int, int]) -> None:
    classes = len(dataset.classes)
    schema = pa.schema(
        [
            ("stem", pa.string()),
            ("source", pa.binary(32)),  # `source_digest`
            ("counts", pa.binary(8 * classes)),  # (K,) int64 of the native label
            ("image", pa.binary(size[0] * size[1] * 3)),
            ("label", pa.binary(size[0] * size[1])),
            ("native", pa.large_binary()),  # null when it is the label itself
            ("native_height", pa.int32()),
        ],
        metadata={"height": str(size[0]), "width": str(size[1])},
    )
    with (
        replacing(path) as temporary,
        pa.ipc.new_file(str(temporary), schema) as writer,
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
    ):
        for start in range(0, len(pairs), _CHUNK):
            for row in pool.map(lambda pair: _row(dataset, pair, size), pairs[start : start + _CHUNK]):
                writer.write_batch(pa.record_batch([[value] for value in row], schema=schema))


def _row(dataset: SegDataset, pair: Pair, size: tuple[int, int]) -> tuple[Any, ...]:
    image, native = dataset.read(pair)
    counts = np.bincount(native[native != IGNORE], minlength=len(dataset.classes)).astype(np.int64)
    label = resize_label(native, size)
    return (
        pair.stem,
        source_digest(pair),
        counts.tobytes(),
        resize_image(image, size).tobytes(),
        label.tobytes(),
        None if native.shape == size else native.tobytes(),
        native.shape[0],
    )


def _bytes(column: pa.Array) -> np.ndarray:
    """A view of the bytes of a binary column that has one value."""
    return np.frombuffer(column[0].as_buffer(), np.uint8)
