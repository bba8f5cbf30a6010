"""Where plugins come from: the files that a study or a run names, and packages with entry points."""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata, util
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trainer.config.errors import UserError, explain
from trainer.config.plugin import GROUPS, MOST_CHARACTERS, Plugin, check_entry, read_plugin


def with_plugins(data: Any, folder: Path) -> Any:
    """The plain data of a config with its plugins as records: files of `folder` are read, and installed packages added.

    Data that has only records, as a run's config.yaml, stays as it is. Raises UserError for a file that cannot be a
    plugin and for a name that is defined twice.
    """
    if not isinstance(data, Mapping) or ("plugins" in data and _are_records(data["plugins"])):
        return data
    return {**data, "plugins": [plugin.plain(whole=True) for plugin in resolve(data.get("plugins", []), folder)]}


def resolve(listed: Any, folder: Path) -> list[Plugin]:
    """The plugins of a list of file names and records, and the installed packages. Raises UserError."""
    if not isinstance(listed, list | tuple):
        raise UserError(f"plugins: a list of files is expected, for example [my_kd.py], but got {listed!r}")
    given = [record(item) if isinstance(item, Mapping) else read_plugin(item, folder) for item in listed]
    if len(names := [plugin.name for plugin in given]) > len(set(names)):
        raise UserError(f"plugins: each file may be named once, but got {', '.join(names)}; remove one")
    if (total := sum(len(plugin.source) for plugin in given)) > MOST_CHARACTERS:
        raise UserError(
            f"plugins: plugin files may have {MOST_CHARACTERS:,} characters together, but these have {total:,}; make a "
            "package with entry points of them"
        )
    packages = {plugin.package for plugin in given if not plugin.is_file}
    found = [*given, *(plugin for plugin in installed() if plugin.package not in packages)]
    refuse_twice(found)
    return found


def record(plain: Mapping[str, Any]) -> Plugin:
    """A plugin from its record. Raises UserError where it is wrong."""
    try:
        return Plugin.model_validate(plain)
    except ValidationError as error:
        raise explain(error, "plugins") from None


def refuse_twice(plugins: Iterable[Plugin]) -> None:
    """Raise UserError where different plugins define one name."""
    seen: dict[tuple[str, str], Plugin] = {}
    for plugin in plugins:
        for group, names in plugin.entries.items():
            for name in names:
                other = seen.setdefault((group, name), plugin)
                if other.sha256 != plugin.sha256:
                    raise UserError(
                        f"plugins: the {GROUPS[group].what} '{name}' is defined twice, in {other.name} and in "
                        f"{plugin.name}; rename one"
                    )


def installed() -> tuple[Plugin, ...]:
    """The installed packages that declare entry points of GROUPS. Nothing of them is imported. Raises UserError for a
    package that declares a name or a module that cannot be."""
    return _installed(tuple(sys.path))


@functools.lru_cache(maxsize=4)
def _installed(path: tuple[str, ...]) -> tuple[Plugin, ...]:
    """By sys.path, of which finding all packages depends."""
    entry_points = metadata.entry_points()
    found: dict[str, dict[str, list[metadata.EntryPoint]]] = {}
    for dictionary, group in GROUPS.items():
        for point in entry_points.select(group=group.entry_points):
            if point.dist is not None:
                found.setdefault(f"{point.dist.name} {point.dist.version}", {}).setdefault(dictionary, []).append(point)
    return tuple(_package(name, groups) for name, groups in sorted(found.items()))


def _package(name: str, groups: Mapping[str, Sequence[metadata.EntryPoint]]) -> Plugin:
    points = [point for listed in groups.values() for point in listed]
    for group, listed in groups.items():
        for point in listed:
            check_entry(point.name, group, f"package {name}: {point.group}")
    content = hashlib.sha256(name.encode())
    for top in sorted({point.module.partition(".")[0] for point in points}):
        for inside, file in _files(top, name):
            content.update(f"\0{inside}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    entries = {group: tuple(sorted({point.name for point in listed})) for group, listed in groups.items()}
    return Plugin(name=name, sha256=content.hexdigest(), entries=entries)


def _files(module: str, package: str) -> list[tuple[str, Path]]:
    """The files of a top-level module, with their names in it. Raises UserError where it is not installed."""
    spec = util.find_spec(module)
    if spec is None:
        raise UserError(f"package {package} declares entry points in {module}, which is not installed; reinstall it")
    if not spec.submodule_search_locations:
        return [(module, Path(spec.origin or ""))]
    return [
        (f"{module}/{file.relative_to(folder)}", file)
        for folder in map(Path, spec.submodule_search_locations)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts
    ]


def _are_records(listed: Any) -> bool:
    return isinstance(listed, list | tuple) and all(isinstance(item, Mapping) for item in listed)
