"""Where imports come from: our packages from one folder, in the driver and in Ray's workers, whatever sys.path holds.

A user's `trainer.py` or `cluster/` in the working directory, on PYTHONPATH or in another distribution would otherwise
replace ours. This file imports the standard library only: it is in force before another of ours is imported.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

PACKAGES = ("ablations", "cluster", "orchestrator", "trainer")
ROOT = Path(__file__).parents[1]
"""The folder that holds them."""


class Finder:
    """An entry of sys.meta_path: finds our packages in `root`, and other modules on `path` before sys.path.

    Where a machine has no such root, its own copy is taken if it has the same files. Raises ImportError otherwise.
    """

    def __init__(self, root: str, path: Sequence[str] = (), digests: dict[str, str] | None = None) -> None:
        self.root = root
        self.path = list(path)
        self.digests = digests

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        """As the import system asks; `path` is None for a module at the top."""
        if path is not None or (name not in PACKAGES and not self.path):
            return None
        if name not in PACKAGES:
            return PathFinder.find_spec(name, self.path)
        return PathFinder.find_spec(name, [self.root]) or self._elsewhere(name)

    def _elsewhere(self, name: str) -> ModuleSpec | None:
        others = [finder for finder in sys.meta_path if finder is not self]
        spec = next((spec for finder in others if (spec := finder.find_spec(name, None))), None)
        origin = spec and (spec.origin or next(iter(spec.submodule_search_locations or []), None))
        if self.digests and digest(Path(origin).parent if origin else Path()) != self.digests[name]:
            raise ImportError(
                f"{socket.gethostname()}: {origin or 'nothing'} stands where the driver has {self.root}/{name}; "
                "install the driver's version there, or remove the file"
            )
        return spec


def digest(package: Path) -> str:
    """SHA-256 of a package's Python files, names and contents."""
    found = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        found.update(f"{file.relative_to(package)}\0".encode())
        found.update(file.read_bytes())
    return found.hexdigest()


def install(finder: Finder) -> None:
    """Ask the finder before sys.path, after built-in and frozen modules."""
    sys.meta_path.insert(sys.meta_path.index(PathFinder), finder)


def as_here() -> Callable[[], None]:
    """A function that makes another process import what this one does, and lets the same users read the files that it
    makes. Pickle this module by value for it."""
    finder = Finder(
        str(ROOT), [str(Path(entry).absolute()) for entry in sys.path], {name: digest(ROOT / name) for name in PACKAGES}
    )

    umask = os.umask(0o077)
    os.umask(umask)

    def be_as_the_driver() -> None:
        install(finder)
        os.umask(umask)

    return be_as_the_driver


install(Finder(str(ROOT)))
