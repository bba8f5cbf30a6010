"""What a machine says of itself, so that those of a cluster can be compared: versions, GPUs, disks, data, clock."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from orchestrator.prepare.machine import Gpus, gpus
from trainer.config import message_of

SHM = Path("/dev/shm")
REACH_S = 4.0
"""Timeout of a connection to the head, in seconds."""


@dataclass(frozen=True)
class Facts:
    """One machine, as a process on it sees it."""

    host: str
    packages: dict[str, str]
    """Name -> version, with Python; "" where it is not installed."""
    gpus: Gpus
    shm_bytes: int | None
    """The size of /dev/shm; None where there is none."""
    free_bytes: dict[str, int]
    """Folder -> free space of its disk."""
    roots: dict[str, str]
    """Data set -> fingerprint of its folder; "" where there is none."""
    time_s: float
    """Its clock, in seconds since 1970."""
    unreached: dict[str, str] = field(default_factory=dict)
    """Port of the head, as in `dashboard at 10.0.0.1:8265` -> why it cannot be reached from here."""


def facts(
    packages: Iterable[str], folders: Iterable[str], roots: Mapping[str, str], ports: Mapping[str, str] | None = None
) -> Facts:
    """Those of this machine. `ports`: what listens on the head -> HOST:PORT."""
    return Facts(
        socket.gethostname(),
        {"Python": platform.python_version(), **{name: version(name) for name in packages}},
        gpus(),
        shm_bytes(),
        {folder: free_bytes(Path(folder)) for folder in folders},
        {name: fingerprint(Path(root)) for name, root in roots.items()},
        time.time(),
        {f"{name} at {at}": why for name, at in (ports or {}).items() if (why := why_unreached(at))},
    )


def shm_bytes() -> int | None:
    """The size of /dev/shm; None where there is none."""
    return shutil.disk_usage(SHM).total if SHM.is_dir() else None


def why_unreached(address: str) -> str:
    """Why nothing answers at HOST:PORT; "" where something does."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()
    except OSError as error:
        return message_of(error)
    return ""


def version(package: str) -> str:
    """The version of an installed package; "" where it is not."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.absolute().parents) if path.is_dir())


def free_bytes(folder: Path) -> int:
    """Free space of the disk of a folder, which may not exist yet."""
    return shutil.disk_usage(existing(folder)).free


def fingerprint(folder: Path) -> str:
    """12 hex digits of the names and sizes of all files of a folder; "" where there is none, or none that can be read.
    Contents are not read: a data set may have 100 GB."""
    found = hashlib.sha256()
    files = 0
    for where, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(where, name)
            size = path.stat().st_size if path.exists() else -1  # a link to nothing
            found.update(f"{path.relative_to(folder)}\0{size}\0".encode(errors="surrogateescape"))
            files += 1
    return found.hexdigest()[:12] if files else ""
