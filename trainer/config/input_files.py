"""The files that a command reads: a regular file, and never one that it also writes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from trainer.config.errors import UserError

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def with_home(path: str) -> str:
    """The path with the home folder for a `~` or `~user` at its beginning; as it is where there is no such user."""
    return os.path.expanduser(path)  # noqa: PTH111 - Path's raises an error where there is no such user


def check_regular(path: Path) -> None:
    """Raise UserError for a device, a pipe or a socket, whose reading may never end. Other paths are left to the
    reader, missing ones and folders too."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise UserError(
            f"{path} is {_kind(path)}, and only files can be read; write its content to a file and give that"
        )


def check_own_file(path: Path) -> None:
    """Raise UserError where a path at which we keep a file holds something else: a folder, a pipe, a device."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return
    if not stat.S_ISREG(mode):
        raise UserError(f"{path} must be a file but is {_kind(path)}; move it away")


def refuse_undecodable(path: Path | str) -> None:
    """Raise UserError for a path that is not UTF-8: names are printed and enter fingerprints."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(f"the name {os.fsencode(path)!r} is not UTF-8; rename it") from None


def check_output(option: str, out: Path, inputs: Iterable[Path | None]) -> None:
    """Raise UserError unless `out` can be written as a file, in folders that are there or can be made, and is none of
    `inputs`, by whatever name or link."""
    written = _real(out)
    above = next(folder for folder in written.parents if _is_there(folder))
    if not above.is_dir():
        raise UserError(
            f"{option} {out}: {above} is {_kind(above)}, in which nothing can be written; name another place"
        )
    if not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"{option} {out}: you may not write in the folder {above}; name another place")
    if not written.exists():
        return
    if not written.is_file():
        raise UserError(f"{option} {out} is {_kind(written)}; name a file that may be written")
    for path in inputs:
        if path is not None and same_file(out, path):
            raise UserError(f"{option} {out} would be written over {path}, which is read; name another file")


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file or folder, by links, letter case or `..`; False where one does not exist."""
    try:
        return _real(one).samefile(_real(other))
    except (OSError, ValueError):
        return False


def holds(folder: Path, path: Path) -> bool:
    """Whether an existing folder is `path` or one of the folders above it, by whatever name or link."""
    real = _real(path)
    return any(same_file(folder, above) for above in (real, *real.parents))


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a folder above it may not be looked into
        return False


def _kind(path: Path) -> str:
    mode = path.stat().st_mode
    return "a file" if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "a special file")


def _real(path: Path) -> Path:
    """A path without links and `..`, as it will be when the folders in it that are missing have been made."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # links that lead to themselves
        return path
