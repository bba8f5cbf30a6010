"""The files below a folder, also those of linked folders, each once."""

from __future__ import annotations

import os
from pathlib import Path


def files_below(folder: Path) -> list[Path]:
    """Sorted by path. A link to a folder is followed, unless its files are reached without it or by an earlier link."""
    reached, found = [folder.resolve()], list[Path]()
    for at, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in sorted(folders) if _is_new(Path(at, name), reached)]
        found += [Path(at, name) for name in files]
    return sorted(found)


def _is_new(folder: Path, reached: list[Path]) -> bool:
    """Whether a folder is to be walked; a link's target is then put into `reached`, the roots of what is walked."""
    if not folder.is_symlink():
        return True
    target = folder.resolve()
    if any(target == root or root in target.parents or target in root.parents for root in reached):
        return False
    reached.append(target)
    return True
