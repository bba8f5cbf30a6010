"""plugin check: whether a module of your own keeps the contract that ours keep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from trainer.config import Plugin, UserError, counted, installed, printable, unknown
from trainer.config.plugin import read_plugin
from trainer.config.plugin_packages import same_package

app = typer.Typer(no_args_is_help=True, help="Modules of your own: distillers, networks and data sets.")


@app.callback()
def _verbs() -> None:
    """Modules of your own: distillers, networks and data sets."""


@app.command()
def check(
    file: Annotated[str, typer.Argument(metavar="FILE", help="a Python file, or the name of an installed package")],
) -> None:
    """Check what a plugin defines: shapes, gradients, micro-batches, determinism, state, the meta device."""
    plugin = _plugin(file)
    from trainer.contract.examine import examine

    console, broken, said = Console(highlight=False), 0, ""
    for finding in examine(plugin):
        if finding.entry != said:
            said = finding.entry
            console.print(Text(printable(f"{plugin.name}: {said}"), style="bold"), soft_wrap=True)
        broken += bool(finding.broken)
        mark = ("  broken  ", "bold red") if finding.broken else ("  kept    ", "green")
        told = f"{finding.promise}: {finding.broken}" if finding.broken else finding.promise
        console.print(Text.assemble(mark, printable(told)), soft_wrap=True)
        if finding.unchecked:
            left = f"  not checked, until that is kept: {counted(finding.unchecked, 'further promise')}"
            console.print(Text(left, style="dim"), soft_wrap=True)
    if broken:
        console.print(Text(f"{broken} promise{'s' * (broken > 1)} broken", style="red"))
        raise typer.Exit(1)
    console.print(Text("keeps the contract", style="green"))


def _plugin(name: str) -> Plugin:
    """The plugin in a file, or an installed package. Raises UserError where there is none."""
    path = Path(name)
    if path.suffix == ".py":
        return read_plugin(path.name, path.parent)
    packages = installed()
    for plugin in packages:
        if same_package(plugin.package, name):
            return plugin
    if path.is_dir():
        raise UserError(
            f"{name} is a folder: a plugin is a Python file or an installed package; install it, "
            f"`pip install -e {name}`, and give the package's name"
        )
    raise unknown("plugin file or package", name, [plugin.package for plugin in packages])
