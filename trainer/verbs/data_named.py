"""section(): the data section that the arguments of `data` commands name: a data set with options, or a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from trainer.config import DataConfig, UserError, parse, parse_argument, read_yaml, with_plugins

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="a data set, as in data.name, or a YAML file with a section `data:`")
]
Options = Annotated[
    list[str] | None, typer.Option("--option", help="an option of the data set as in data.options: aug=true")
]
PluginFile = Annotated[
    Path | None, typer.Option("--plugin", metavar="FILE", help="the Python file that defines a data set of your own")
]


def section(name: str, options: list[str] | None, plugin: Path | None = None) -> DataConfig:
    """The `data:` section of a data set's name, or of a YAML file that has one; `options` are of the command line, and
    `plugin` defines the data set, which is then known."""
    given = dict(parse_argument(text, "--option", "NAME=VALUE, for example aug=true") for text in options or [])
    if not name.lower().endswith((".yaml", ".yml")):
        return _known({"data": {"name": name, "options": given}}, plugin, "options")
    found = read_yaml(Path(name))
    found = found.get("base", found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not isinstance(found.get("data"), dict):
        raise UserError(f"{name} has no section `data:`; give a data set's name, or a file that `data init` writes")
    data = {**found["data"], "options": {**(found["data"].get("options") or {}), **given}}
    return _known({"data": data}, plugin, name)


def _known(data: dict[str, Any], plugin: Path | None, where: str) -> DataConfig:
    from trainer.plugins.load import add

    listed = {"plugins": [plugin.name]} if plugin else {}
    config = parse(with_plugins({**data, **listed}, plugin.parent if plugin else Path()), where)
    add(config.used_plugins)
    return config.data
