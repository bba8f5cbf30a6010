"""The names of timm's checkpoints in our timm/NAME networks, which wrap timm's feature extractor."""

from __future__ import annotations

import re
from collections.abc import Iterable

BACKBONE = "backbone."


def aliases(ours: Iterable[str]) -> dict[str, str]:
    """Each name that an entry may have in a file -> ours: our own, and timm's.

    timm's feature extractor writes the first dot of some names as an underscore: `stages_0.norm` for `stages.0.norm`.
    """
    found: dict[str, str] = {}
    for name in ours:
        found[name] = name
        if name.startswith(BACKBONE):
            timms = name.removeprefix(BACKBONE)
            found[timms] = found[re.sub(r"^([A-Za-z_]+)_(\d+)\.", r"\1.\2.", timms)] = name
    return found
