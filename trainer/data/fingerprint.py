"""The fingerprint of a split: 12 hex digits of its stems and its files' bytes. It enters the identity of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from trainer.data.pairing import Pair


def source_digest(pair: Pair) -> bytes:
    """32 bytes: the sha256 of the image file's bytes and the label file's bytes."""
    source = hashlib.sha256(pair.image.read_bytes())
    source.update(pair.label.read_bytes())
    return source.digest()


def fingerprint(sources: Iterable[tuple[str, bytes]]) -> str:
    """Of (stem, source digest) in the order of the stems. Place, time and input size do not enter."""
    content = hashlib.sha256()
    for stem, digest in sources:
        content.update(stem.encode() + b"\0" + digest)
    return content.hexdigest()[:12]
