"""Who may read and write a store: whom the user's umask lets, or all users of a group.

A store that a group shares is a folder with the group's setgid bit that the group may write: what is made in it has its
group, and a process that opens it lets the group write what it makes.
"""

from __future__ import annotations

import grp
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from trainer.config import UserError, message_of

SHARED = stat.S_ISGID | stat.S_IRWXG
"""The mode bits of a shared folder."""


def group_id(group: str) -> int:
    """The number of a group that this user is in. Raises UserError."""
    try:
        number = grp.getgrnam(group).gr_gid
    except KeyError:
        raise UserError(f"group: this machine has no group {group}; write one that `id -Gn` lists") from None
    if os.geteuid() and number not in (os.getegid(), *os.getgroups()):
        raise UserError(f"group: you are not in the group {group}; write one that `id -Gn` lists")
    return number


def share(root: Path, group: str) -> None:
    """Let all users of a group read and write a store: what is there, and what will be made there. Raises UserError."""
    number = group_id(group)
    root.mkdir(parents=True, exist_ok=True)
    there = root.stat()
    if there.st_gid == number and there.st_mode & SHARED == SHARED:
        return
    try:
        for path in _below(root):
            mode = path.stat().st_mode
            os.chown(path, -1, number)
            path.chmod(mode | (SHARED if path.is_dir() else stat.S_IRGRP | stat.S_IWGRP))
    except OSError as error:
        raise UserError(
            f"group: store {root} cannot be given to {group} ({message_of(error)}); let its owner run a study with "
            f"this spec, or name another with --store"
        ) from None


def _below(root: Path) -> Iterator[Path]:
    """The files and folders of a store, the store itself last: its mode says that all have been given. What a link
    leads to is not the store's."""
    for where, folders, names in os.walk(root, topdown=False):
        yield from (path for name in (*names, *folders) if not (path := Path(where, name)).is_symlink())
    yield root


def write_as_shared(root: Path) -> None:
    """Let the group write what this process makes from now on, where a group shares the store."""
    if root.is_dir() and root.stat().st_mode & SHARED == SHARED:
        os.umask(os.umask(0o077) & ~stat.S_IRWXG)
