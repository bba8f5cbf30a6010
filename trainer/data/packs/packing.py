"""write_missing(): decode, resize and write what a packed split lacks, on several threads, shard by shard."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from trainer.config import UserError
from trainer.config.input_files import check_regular
from trainer.data.ahead import ahead
from trainer.data.base import SegDataset
from trainer.data.packs.pack_files import PackFiles, Shard
from trainer.data.packs.pack_rows import PICTURE, PIXEL_CHECK, SOURCE_CHECK, checksum
from trainer.data.pairing import Pair
from trainer.data.returned import counted_classes, label_of
from trainer.files.atomic import replacing

Say = Callable[[str], None]

SAID_EVERY_S = 10.0

Row = tuple[list[Any] | None, list[Any] | None]
"""Of one pair: the columns of its samples file and of its natives file; None where that file is there."""


def refuse_without_room(wanted: Sequence[tuple[PackFiles, bool]]) -> None:
    """Raise UserError where the disk has no room for what the splits lack; `wanted`: each with `native`."""
    need = sum(files.need_bytes(native) for files, native in wanted)
    if need and need > (free := shutil.disk_usage(folder := wanted[0][0].folder).free):
        names = " and ".join(files.name for files, _ in wanted)
        raise UserError(
            f"packing {names} needs {need / 1e9:.2f} GB in {folder} but {free / 1e9:.2f} GB are free there; free some, "
            "lower data.size, or choose a store or TRANSKD_CACHE on a larger disk"
        )


def write_missing(files: PackFiles, dataset: SegDataset, native: bool, say: Say) -> None:
    """Write the shards that `files` lacks; a lock keeps processes from packing twice. A killed process leaves the
    shards that it has written. Raises the data set's UserError for the first wrong file."""
    with _locked(files.folder / f"{files.stem}.lock", files.name, say):
        missing = files.missing(native)
        for partial in files.folder.glob(f".{files.stem}*"):
            partial.unlink(missing_ok=True)
        total = sum(len(shard.pairs) for shard in missing)
        progress = _Progress(files, total, files.need_bytes(native) if missing else 0, say)
        kinds = [(not shard.has_samples, native and not shard.has_natives) for shard in missing]
        work = [(pair, *kind) for shard, kind in zip(missing, kinds, strict=True) for pair in shard.pairs]
        threads = min(16, os.cpu_count() or 1)
        rows = ahead(lambda item: _row(dataset, files.size, *item), work, threads=threads, most=2 * threads)
        for shard, kind in zip(missing, kinds, strict=True):
            with _shard_files(
                shard, *kind, _samples_schema(files.size, len(dataset.classes), dataset.channels)
            ) as writers:
                for _ in shard.pairs:
                    for writer, columns in zip(writers, next(rows), strict=True):
                        if writer is not None:
                            batch = pa.record_batch([[value] for value in columns or ()], schema=writer.schema)
                            writer.write_batch(batch)
                    progress.one_more()


class _Writer:
    """An Arrow file that is being written."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.schema = schema
        self.file = pa.ipc.new_file(str(path), schema)
        self.write_batch = self.file.write_batch


@contextlib.contextmanager
def _shard_files(
    shard: Shard, samples: bool, natives: bool, schema: pa.Schema
) -> Iterator[tuple[_Writer | None, _Writer | None]]:
    """The files of a shard that are to be written; they get their names together, at the end."""
    with contextlib.ExitStack() as stack:

        def begin(path: Path, schema: pa.Schema) -> _Writer:
            if path.is_dir():
                shutil.rmtree(path)
            writer = _Writer(stack.enter_context(replacing(path)), schema)
            stack.enter_context(writer.file)
            return writer

        yield (
            begin(shard.samples, schema) if samples else None,
            begin(shard.natives, _natives_schema()) if natives else None,
        )


def _samples_schema(size: tuple[int, int], classes: int, channels: int) -> pa.Schema:
    columns = [
        ("stem", pa.string()),
        ("source", pa.binary(32)),  # `source_digest`
        ("counts", pa.binary(8 * classes)),  # (K,) int64 of the native label
        ("image", pa.binary(size[0] * size[1] * channels)),
        ("label", pa.binary(size[0] * size[1])),
        (SOURCE_CHECK, pa.uint32()),
        (PIXEL_CHECK, pa.uint32()),
        (PICTURE, pa.binary(32)),  # `picture_digest`
    ]
    told = {"height": str(size[0]), "width": str(size[1])} | ({"channels": str(channels)} if channels != 3 else {})
    return pa.schema(columns, metadata=told)


def _natives_schema() -> pa.Schema:
    native = ("native", pa.large_binary())  # null where it is the label itself
    return pa.schema([native, ("native_height", pa.int32()), (PIXEL_CHECK, pa.uint32())])


def _row(dataset: SegDataset, size: tuple[int, int], pair: Pair, samples: bool, natives: bool) -> Row:
    if not samples:
        return None, _native_columns(label_of(dataset, pair.label), size)
    image, native = dataset.read(pair)
    counts = counted_classes(dataset, pair.label, native)
    label = resize_label(native, size)
    short = [source_digest(pair), counts.tobytes()]
    picture = picture_digest(image)
    pixels = [resize_image(image, size).tobytes(), label.tobytes()]
    checks = [checksum([pair.stem.encode(), *short, picture]), checksum(pixels)]
    columns = [pair.stem, *short, *pixels, *checks, picture]
    return columns, _native_columns(native, size) if natives else None


def _native_columns(native: np.ndarray, size: tuple[int, int]) -> list[Any]:
    stored = None if native.shape == size else native.tobytes()
    return [stored, native.shape[0], checksum([stored])]


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, C) uint8 at `size` by PIL's antialiased bilinear filter, as in the reference; each channel alike."""
    if image.shape[2] != 3:
        channels = (Image.fromarray(np.ascontiguousarray(channel)) for channel in np.moveaxis(image, 2, 0))
        return np.stack([np.asarray(one.resize(size[::-1], Image.Resampling.BILINEAR)) for one in channels], axis=-1)
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))


def resize_label(label: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8 at `size` by nearest neighbour."""
    return np.asarray(Image.fromarray(label).resize(size[::-1], Image.Resampling.NEAREST))


def source_digest(pair: Pair) -> bytes:
    """32 bytes: the sha256 of the image file's bytes followed by the label file's bytes."""
    for path in (pair.image, pair.label):
        check_regular(path)
    source = hashlib.sha256(pair.image.read_bytes())
    source.update(pair.label.read_bytes())
    return source.digest()


def picture_digest(image: np.ndarray) -> bytes:
    """32 bytes that are equal for images (H, W, C) of equal pixels, whatever their files."""
    digest = hashlib.sha256(f"{image.shape}".encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()


@contextlib.contextmanager
def _locked(path: Path, name: str, say: Say) -> Iterator[None]:
    """Hold an advisory lock, which ends with its process; say so while another process holds it."""
    with path.open("w", encoding="utf-8") as handle:
        said = time.monotonic()
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() - said > SAID_EVERY_S:
                    say(f"waiting for another process, which packs {name}")
                    said = time.monotonic()
                time.sleep(0.05)
        yield


class _Progress:
    """Says every ten seconds how far packing is; nothing of what takes less."""

    def __init__(self, files: PackFiles, total: int, need_bytes: int, say: Say) -> None:
        self.files, self.total, self.need_bytes, self.say = files, total, need_bytes, say
        self.done = 0
        self.started = self.said = time.monotonic()

    def one_more(self) -> None:
        """A pair has been packed."""
        self.done += 1
        now = time.monotonic()
        if now - self.said >= SAID_EVERY_S:
            self.said = now
            rate = self.done / (now - self.started)
            self.say(
                f"packing {self.files.name}: {self.done} of {self.total} images, {rate:.0f} a second, "
                f"{(self.total - self.done) / rate:.0f} s left; {self.need_bytes / 1e9:.2f} GB in {self.files.folder}"
            )
