"""The plugins of a config: the files that a study or a run names, and the packages that are installed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trainer.config.errors import UserError, explain
from trainer.config.plugin import GROUPS, MOST_CHARACTERS, Plugin, read_plugin
from trainer.config.plugin_packages import installed


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
    found = [plugin for plugin in installed() if plugin.package not in packages]
    refuse_twice(given)
    for plugin in found:  # two packages may share a name that no run uses: who installed them cannot rename it
        refuse_twice([*given, plugin])
    return [*given, *found]


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
                    remedy = "rename one" if other.is_file or plugin.is_file else "uninstall one of the two packages"
                    raise UserError(
                        f"plugins: the {GROUPS[group].what} '{name}' is defined twice, in {other.name} and in "
                        f"{plugin.name}; {remedy}"
                    )


def _are_records(listed: Any) -> bool:
    return isinstance(listed, list | tuple) and all(isinstance(item, Mapping) for item in listed)
