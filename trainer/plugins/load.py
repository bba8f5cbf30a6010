"""Run plugins and put their entries into our dictionaries. A file is run from the text that its config carries."""

from __future__ import annotations

import linecache
import sys
import types
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import Any

from trainer.config import Plugin, UserError
from trainer.config.blame import answers_for, place, told
from trainer.config.plugin import GROUPS
from trainer.config.plugin_packages import home, packages, same_package
from trainer.config.plugin_sources import refuse_twice
from trainer.plugins.groups import REGISTRIES

MODULE = "transkd_plugin_"
"""How the modules of files are named, with their digest behind it."""
_run: dict[str, dict[str, dict[str, Any]]] = {}
"""By sha256: the entries of plugins that this process has run, by group."""
_active: set[tuple[str, str]] = set()
"""(group, name) of the entries of plugins in our dictionaries."""


def activate(plugins: Iterable[Plugin]) -> None:
    """Make the entries of these plugins known, and no others. Raises UserError as `add`."""
    for group, name in _active:
        REGISTRIES[group].entries.pop(name, None)
    _active.clear()
    add(plugins)


def add(plugins: Iterable[Plugin]) -> None:
    """Make the entries of these plugins known. An entry of another plugin with the same name is replaced.

    Raises UserError for a plugin that cannot be run, with the line, that does not define what it should, or defines a
    name of ours.
    """
    listed = list(plugins)
    refuse_twice(listed)
    for plugin in listed:
        _refuse_ours(plugin)
        for group, entries in entries_of(plugin).items():
            REGISTRIES[group].entries.update(entries)
            _active.update((group, name) for name in entries)


def entries_of(plugin: Plugin) -> dict[str, dict[str, Any]]:
    """The entries of a plugin by group and name; it is run once in a process. Raises UserError as `add`."""
    if plugin.sha256 not in _run:
        found = _run_file(plugin) if plugin.is_file else _load_package(plugin)
        for group, entries in found.items():
            for name, entry in entries.items():
                _check(plugin, group, name, entry)
        for dataset in found.get("DATASETS", {}).values():
            dataset.code = plugin.sha256
        _run[plugin.sha256] = found
    return _run[plugin.sha256]


def _refuse_ours(plugin: Plugin) -> None:
    for group, names in plugin.entries.items():
        for name in sorted(REGISTRIES[group].ours & set(names)):
            raise UserError(
                f"plugin {plugin.name}: the {GROUPS[group].what} '{name}' is defined twice, for it is one of ours; "
                "rename yours"
            )
        for name in sorted(REGISTRIES[group].losses & set(names)):
            raise UserError(
                f"plugin {plugin.name}: the {GROUPS[group].what} '{name}' has the name of one of our losses, and "
                f"loss/{name} would be both; rename yours"
            )


def _check(plugin: Plugin, group: str, name: str, entry: Any) -> None:
    try:
        REGISTRIES[group].check(entry)
    except UserError as error:
        raise UserError(f"plugin {plugin.name}: the {GROUPS[group].what} '{name}' {error}") from None


def _run_file(plugin: Plugin) -> dict[str, dict[str, Any]]:
    if not plugin.source:
        raise UserError(
            f"plugin {plugin.name}: its text is not in this record; take the config.yaml of a run, or the file itself"
        )
    module = types.ModuleType(f"{MODULE}{plugin.sha256[:12]}")
    module.__file__ = plugin.name
    lines = plugin.source.splitlines(keepends=True)
    linecache.cache[plugin.name] = (len(plugin.source), None, lines, plugin.name)  # for tracebacks
    sys.modules[module.__name__] = module  # where dataclasses and pickle look for it
    answers_for(module.__name__, plugin.name)
    try:
        exec(compile(plugin.source, plugin.name, "exec"), vars(module))
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise UserError(
            f"plugin {plugin.name}{place(error, plugin.name)} does not run: {told(error, plugin.name)}"
        ) from None
    return {group: _defined(plugin, group, vars(module).get(group)) for group in plugin.entries}


def _defined(plugin: Plugin, group: str, found: Any) -> dict[str, Any]:
    """The dictionary of a group, which must have the names that its text shows."""
    expected = list(plugin.entries[group])
    if not isinstance(found, Mapping) or list(found) != expected:
        got = list(found) if isinstance(found, Mapping) else found
        raise UserError(
            f"plugin {plugin.name}: {group} must have the names that its line shows, {', '.join(expected)}, but after "
            f"running the file it is {got!r}; write all names into that dictionary"
        )
    return dict(found)


def _load_package(plugin: Plugin) -> dict[str, dict[str, Any]]:
    here = next((other for other in packages() if same_package(other.plugin.package, plugin.package)), None)
    if here is None:
        raise UserError(f"plugin {plugin.name} is not installed on this machine; install it")
    if here.plugin.sha256 != plugin.sha256:
        raise UserError(
            f"plugin {plugin.name} is meant, but {here.plugin.name} with other content is installed on this machine; "
            f"install {plugin.name}, or plan the runs again from the study's file"
        )
    for entries in here.points.values():
        for point in entries.values():
            answers_for(home(point.module), plugin.name)
    return {
        group: {name: _load(plugin, group, here.points[group][name]) for name in names}
        for group, names in plugin.entries.items()
    }


def _load(plugin: Plugin, group: str, point: metadata.EntryPoint) -> Any:
    try:
        return point.load()
    except (Exception, SystemExit) as error:
        remedy = "" if isinstance(error, ImportError) else "; correct the package"
        raise UserError(
            f"plugin {plugin.name}: the {GROUPS[group].what} '{point.name}' cannot be loaded from {point.value}"
            f"{place(error, plugin.name)}: {told(error, plugin.name)}{remedy}"
        ) from None
