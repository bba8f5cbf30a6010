"""Installed packages that declare entry points, as plugins. Nothing of them is imported."""

from __future__ import annotations

import csv
import functools
import hashlib
import re
import sys
from collections.abc import Iterable
from importlib import metadata, util
from importlib.machinery import ModuleSpec
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pydantic import ValidationError

from trainer.config.errors import UserError, explain
from trainer.config.plugin import GROUPS, Plugin, check_entry
from trainer.config.text import message_of

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VALUE = re.compile(r"\w+(\.\w+)*\s*:\s*\w+(\.\w+)*\s*(\[.*\])?")
"""Of an entry point: `my_package.losses:MyDistiller`."""


class Package(NamedTuple):
    """A package as a plugin, and its entry points by group of GROUPS and name."""

    plugin: Plugin
    points: dict[str, dict[str, metadata.EntryPoint]]


def packages() -> tuple[Package, ...]:
    """The installed packages that declare entry points of GROUPS. Raises UserError for a package whose version, names,
    entry points or files cannot be read."""
    return _packages(tuple(sys.path))


def installed() -> tuple[Plugin, ...]:
    """The plugins of `packages`."""
    return tuple(package.plugin for package in packages())


def same_package(one: str, other: str) -> bool:
    """Whether two names are of one package: letter case, and `-`, `_` and `.`, make no difference."""
    return _plain(one) == _plain(other)


def home(module: str) -> str:
    """The package that a module belongs to: the first of those above it that is no namespace, which packages share."""
    parts = module.split(".")
    names = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
    return next((name for name in names if (spec := _spec(name)) is not None and spec.origin), module)


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@functools.lru_cache(maxsize=4)
def _packages(path: tuple[str, ...]) -> tuple[Package, ...]:
    """By sys.path, of which finding all packages depends. Of two with one name Python imports the first."""
    found: dict[str, metadata.Distribution] = {}
    for dist in metadata.distributions():
        if _declares(dist):
            found.setdefault(_plain(_called(dist)), dist)
    return tuple(_package(dist) for _, dist in sorted(found.items()))


def _declares(dist: metadata.Distribution) -> bool:
    try:
        text = _metadata_file(dist, "entry_points.txt").encode()
    except UnicodeDecodeError as error:
        text = error.object
    return any(f"[{group.entry_points}]".encode() in text for group in GROUPS.values())


def _metadata_file(dist: metadata.Distribution, name: str) -> str:
    """A file of a package's metadata, in UTF-8; "" where it has none."""
    return dist.read_text(name) or ""


def _called(dist: metadata.Distribution) -> str:
    """`my_kd 1.2`. Raises UserError for a package without a name or version."""
    try:
        name, version = (next(iter(dist.metadata.get_all(key) or ()), "") for key in ("Name", "Version"))
    except (UnicodeDecodeError, FileNotFoundError):  # importlib_metadata, where it is imported, misses the file
        name = version = ""
    what = "name" if not _NAME.fullmatch(name) else "version" if not version.strip() else ""
    if what:
        where = f"package {name}" if what == "version" else f"a package in {dist.locate_file('')}"
        raise UserError(
            f"{where} declares entry points of transkd, but its metadata has no {what} that can be read; reinstall it"
        )
    return f"{name} {version}"


def _package(dist: metadata.Distribution) -> Package:
    name = _called(dist)
    points = _points(dist, name)
    content = hashlib.sha256(name.encode())
    for group, entries in points.items():
        for entry, point in sorted(entries.items()):
            content.update(f"\0{group}\0{entry}\0{point.value}".encode())
    modules = sorted({point.module for entries in points.values() for point in entries.values()})
    for inside, file in sorted(_files(dist, modules, name).items()):
        content.update(f"\0{inside}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    names = {group: tuple(sorted(found)) for group, found in points.items()}
    try:
        return Package(Plugin(name=name, sha256=content.hexdigest(), entries=names), points)
    except ValidationError as error:
        raise explain(error, f"package {message_of(ValueError(name))}") from None


def _points(dist: metadata.Distribution, name: str) -> dict[str, dict[str, metadata.EntryPoint]]:
    """The entry points of a package by group and name. Raises UserError for names and values that cannot be."""
    try:
        points = tuple(dist.entry_points)
    except (TypeError, ValueError):  # a line without `=`; a file that is no text
        raise UserError(
            f"package {name}: its entry_points.txt cannot be read, and needs lines NAME = MODULE:CLASS; reinstall it"
        ) from None
    found: dict[str, dict[str, metadata.EntryPoint]] = {}
    for group, (declared, *_) in GROUPS.items():
        for point in points:
            if point.group != declared:
                continue
            where = f"package {name}: {declared}"
            check_entry(point.name, group, where)
            if not _VALUE.fullmatch(point.value):
                raise UserError(
                    f"{where}: '{point.name}' must be a module and what is in it, my_package.losses:MyClass, but got "
                    f"{point.value!r}; correct the package"
                )
            if found.setdefault(group, {}).setdefault(point.name, point).value != point.value:
                raise UserError(f"{where}: the name '{point.name}' is declared twice; correct the package")
    return found


def _files(dist: metadata.Distribution, modules: Iterable[str], name: str) -> dict[str, Path]:
    """The files of a package by their names in it: those that its metadata lists. An editable install lists none, nor
    does a folder on PYTHONPATH: then those of the modules that the metadata names."""
    listed = _listed(dist)
    absent = {module for module in modules if not any(_is_of(module, file) for file in listed)}
    found: dict[str, Path] = {}
    for module in sorted(absent):
        found |= _of_module(module, name)
    if absent:
        tops = _metadata_file(dist, "top_level.txt").split()
        for top in set(tops) - {module.partition(".")[0] for module in absent}:
            if (spec := _spec(top)) is not None and spec.origin:  # without one it is a namespace, others' too
                found |= _of_module(top, name)
    return {**found, **listed}


def _listed(dist: metadata.Distribution) -> dict[str, Path]:
    """The files that the RECORD of an installed package lists, without those that its installer writes."""
    found = {}
    for row in csv.reader(_metadata_file(dist, "RECORD").splitlines()):
        inside = PurePosixPath(row[0] if row else "")
        parts = inside.parts
        if not parts or inside.suffix in (".pth", ".pyc") or parts[0].startswith(("/", "..", "__editable__")):
            continue
        if not parts[0].endswith(".dist-info") and (file := Path(str(dist.locate_file(inside)))).is_file():
            found[str(inside)] = file
    return found


def _is_of(module: str, file: str) -> bool:
    path = module.replace(".", "/")
    return file.startswith((f"{path}.", f"{path}/"))


def _of_module(module: str, package: str) -> dict[str, Path]:
    """The files of the top-level module of a module, with their names. Raises UserError where there are none."""
    top, _, rest = module.partition(".")
    spec = _spec(top)
    if spec is None:
        raise UserError(
            f"package {package} declares entry points in {module}, which is not installed; reinstall or uninstall it"
        )
    found = {}
    if spec.submodule_search_locations is None:
        file = Path(spec.origin or "")
        found = {file.name: file} if file.is_file() else {}
    for folder in map(Path, spec.submodule_search_locations or ()):
        if spec.origin is None and not _holds(folder, rest.partition(".")[0]):
            continue  # another package's part of a namespace
        for file in folder.rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                found[f"{top}/{file.relative_to(folder).as_posix()}"] = file
    if not found:
        raise UserError(
            f"package {package} declares entry points in {module}, whose files cannot be read: it is a part of Python, "
            "or in an archive; install it as a folder of files"
        )
    return found


def _holds(folder: Path, module: str) -> bool:
    return (folder / module).is_dir() or any(folder.glob(f"{module}.*"))


def _spec(module: str) -> ModuleSpec | None:
    try:
        return util.find_spec(module)
    except (ImportError, ValueError):  # `__main__` has none
        return None
