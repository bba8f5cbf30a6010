"""PackFiles: the files of one packed split, which of them are there, and the room that the others need."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from trainer.config import DataConfig, digest
from trainer.data.packs.pack_rows import is_whole
from trainer.data.pairing import Pair, Split

PACK_VERSION = 2
"""Raised by hand when the files' columns, or how they are computed, change."""

SHARD = 256
"""Pairs in one file: at most so many are decoded again after a kill."""


class Shard(NamedTuple):
    """A part of a split: its pairs and its two files."""

    pairs: list[Pair]
    samples: Path
    """Images and labels at the input's size."""
    natives: Path
    """Labels at their own size, which only evaluation and quarter labels read."""

    @property
    def has_samples(self) -> bool:
        """Whether the file of samples is there and whole, as far as its metadata tell."""
        return is_whole(self.samples, [pair.stem for pair in self.pairs])

    @property
    def has_natives(self) -> bool:
        """Whether the file of native labels is."""
        return is_whole(self.natives, [pair.stem for pair in self.pairs])


class PackFiles:
    """The files of a split at `config.size` below `folder`. They have other names when a source file is added, removed
    or rewritten."""

    def __init__(
        self,
        config: DataConfig,
        split: Split,
        pairs: list[Pair],
        folder: Path,
        channels: int = 3,
        code: str = "",
    ) -> None:
        asked = config.model_dump(mode="json", include={"name", "options", "size"}) | ({"code": code} if code else {})
        key = digest({"version": PACK_VERSION, "asked": asked, "split": split, "files": _listing(pairs)})
        self.name = f"{config.name} {split}"
        self.size = config.size
        self.channels = channels
        self.pairs = pairs
        self.folder = folder
        self.stem = f"{config.name}-{split}-{key}"
        self.whole = folder / f"{self.stem}.arrow"
        """All in one file, as earlier versions packed."""
        count = -(-len(pairs) // SHARD)
        of = [f"{i + 1:05}-of-{count:05}.arrow" for i in range(count)]
        self.shards = [
            Shard(
                pairs[i * SHARD : (i + 1) * SHARD],
                folder / f"{self.stem}-samples-{part}",
                folder / f"{self.stem}-natives-{part}",
            )
            for i, part in enumerate(of)
        ]

    @property
    def is_in_one(self) -> bool:
        """Whether an earlier version packed the split, and its file is whole."""
        return is_whole(self.whole, [pair.stem for pair in self.pairs])

    def missing(self, native: bool) -> list[Shard]:
        """The shards that lack a file or have a damaged one; `native`: whether labels at their own size are needed."""
        if self.is_in_one:
            return []
        return [s for s in self.shards if not s.has_samples or (native and not s.has_natives)]

    def paths(self, native: bool) -> tuple[list[Path], list[Path]]:
        """The files with samples, and those with native labels, which are none where they are not needed or where the
        former hold them."""
        if self.is_in_one:
            return [self.whole], []
        return [shard.samples for shard in self.shards], [shard.natives for shard in self.shards] if native else []

    def need_bytes(self, native: bool) -> int:
        """Disk space of what is missing. Native labels are taken to be as large as the first."""
        height, width = self.size
        own = _pixels(self.pairs[0].label) if native and self.pairs else 0
        own = 0 if own == height * width else own
        each = (self.channels + 1) * height * width
        return sum(
            len(shard.pairs) * (each * (not shard.has_samples) + own * (not shard.has_natives))
            for shard in self.missing(native)
        )


def _listing(pairs: list[Pair]) -> list[list[Any]]:
    status = [(pair.stem, path.resolve(), path.stat()) for pair in pairs for path in (pair.image, pair.label)]
    return [[stem, str(path), found.st_size, found.st_mtime_ns] for stem, path, found in status]


def _pixels(label: Path) -> int:
    """Of an image file; 0 where it has no readable header, which packing will refuse."""
    with contextlib.suppress(OSError, ValueError, SyntaxError), Image.open(label) as image:
        return image.width * image.height
    return 0
