"""Disks: the kind of file system that holds a folder, and a folder of this machine's own for what networks damage.

SQLite needs locks and a cache that several machines see alike; NFS, EFS and FUSE do not keep that promise.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from trainer.config import UserError
from trainer.place import default_cache

MOUNTS = Path("/proc/self/mountinfo")
NETWORK = re.compile(
    r"nfs|cifs|smb|efs|lustre|gpfs|beegfs|ceph|afs|glusterfs|panfs|wekafs|pvfs|ocfs|gfs|fuse$|fuse\.(?!fuse-overlayfs)"
)
"""How the names of file systems begin that other machines may write, or that do not keep a promise of locks. A local
disk with NTFS is `fuseblk`; virtual machines have disks of their host as 9p and virtiofs, even as their root."""


def file_system(folder: Path) -> str:
    """The kind of file system that holds a folder, which may not exist yet; "" where it is unknown."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:  # no Linux
        return ""
    there, kinds = folder.resolve(), dict[Path, str]()
    for line in lines:  # 36 35 98:0 / /mnt/store rw shared:1 - nfs4 server:/export rw
        mount, _, source = line.partition(" - ")
        kinds[Path(_decoded(mount.split()[4]))] = source.split()[0]  # of two on one folder the later hides the other
    return next((kinds[path] for path in (there, *there.parents) if path in kinds), "")


def _decoded(text: str) -> str:
    """A path of mountinfo, where spaces stand as \\040."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def is_on_network(folder: Path) -> bool:
    """Whether a folder lies on a network file system."""
    return NETWORK.match(file_system(folder)) is not None


def own_folder() -> Path:
    """A folder on this machine's own disk: of the cache, or where that is on a network, as home often is, in /var/tmp.

    Raises UserError where another user has made the one in /var/tmp.
    """
    if not is_on_network(cache := default_cache()):
        return cache
    folder = Path(f"/var/tmp/transkd-{os.getuid()}")
    if folder.exists() and folder.stat().st_uid != os.getuid():
        raise UserError(f"{folder} belongs to another user; set TRANSKD_CACHE to a folder on this machine's own disk")
    return folder


def folder_of(root: Path) -> Path:
    """Where the databases of the store in `root` lie, which SQLite keeps: the store, unless a network damages them."""
    if not is_on_network(root):
        return root
    return own_folder() / "databases" / f"{root.name}-{hashlib.sha256(os.fsencode(root)).hexdigest()[:8]}"
