"""data check, data make: check a data set's folder before training; write a tiny data set in its layout."""

from __future__ import annotations

import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from trainer.config import DataConfig, parse, parse_argument, printable, with_plugins
from trainer.place import default_cache
from trainer.verbs.options import parse_size

if TYPE_CHECKING:
    from trainer.data import SegDataset
    from trainer.data.check import Contents

SHOWN = 20
"""Most problems that are listed; the rest is only counted."""

NO_BREAK_SPACE = "\xa0"
"""A space at which textwrap breaks no line."""

app = typer.Typer(no_args_is_help=True, help="Check a data set's folder, or make a tiny one.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="a data set, as in data.name")]
Options = Annotated[
    list[str] | None, typer.Option("--option", help="an option of the data set as in data.options: aug=true")
]
PluginFile = Annotated[
    Path | None, typer.Option("--plugin", metavar="FILE", help="the Python file that defines a data set of your own")
]


@app.command()
def check(
    name: Name,
    root: Annotated[Path | None, typer.Argument(metavar="ROOT", help="its folder (scenes makes its own)")] = None,
    subset: Annotated[
        bool, typer.Option("--subset", help="accept a part of the official data set, or another image size")
    ] = False,
    option: Options = None,
    plugin: PluginFile = None,
) -> None:
    """Read every pair; name each file that is wrong, count the pixels of each class, and print the fingerprint."""
    from trainer.data import open_dataset
    from trainer.data.check import check_split, damaged_packs, leaks
    from trainer.data.pairing import Split

    dataset = open_dataset(_config(name, option, plugin), root.absolute() if root else None, default_cache())
    console = Console(highlight=False)
    console.print(Text(printable(f"{name} in {dataset.root}"), style="bold"), soft_wrap=True)
    problems: list[str] = []
    splits: tuple[Split, ...] = ("train", "val")
    found: list[Contents] = []
    for split in splits:
        found.append(check_split(dataset, split, subset=subset, progress=Progress(split)))
        _show(dataset, split, found[-1], console)
        problems += found[-1].problems
    problems += leaks(*found) + damaged_packs(name, default_cache())
    distinct = _deduplicated(problems)
    for problem in distinct[:SHOWN]:
        console.print(Text.assemble(("problem: ", "bold red"), printable(problem)), soft_wrap=True)
    if not distinct:
        console.print(Text("no problems", style="green"))
        return
    hidden = len(distinct) - SHOWN
    count = f"{len(distinct)} problem{'' if len(distinct) == 1 else 's'}"
    console.print(Text(f"{count}, {hidden} of them not shown" if hidden > 0 else count, style="red"))
    raise typer.Exit(1)


@app.command()
def make(
    name: Name,
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="a folder that is empty or not there yet")],
    train: Annotated[int, typer.Option(min=1, help="training pairs")] = 4,
    val: Annotated[int, typer.Option(min=1, help="validation pairs")] = 4,
    size: Annotated[str, typer.Option(metavar="HxW", help="height and width in pixels")] = "64x128",
    seed: Annotated[int, typer.Option(min=0, help="seed of the images")] = 0,
    option: Options = None,
    plugin: PluginFile = None,
) -> None:
    """Write a tiny, correct data set in the layout of a real one, for tests and demonstrations."""
    from trainer.data import check_data, dataset_class
    from trainer.data.make import make_tree, refuse_filled
    from trainer.data.scenes import Scenes, write_scenes

    config = _config(name, option, plugin)
    check_data(config)
    height, width = parse_size(size)
    folder = root.absolute()
    refuse_filled(folder)
    if issubclass(dataset_class(name), Scenes):  # scenes are generated from these options, not copied from a layout
        write_scenes(folder, train=train, val=val, seed=seed, size=(height, width))
    else:
        dataset = dataset_class(name)(folder, cache=default_cache(), **config.options)
        make_tree(dataset, train=train, val=val, seed=seed, size=(height, width))
    again = "".join(f" --option {text}" for text in option or []) + (f" --plugin {plugin}" if plugin else "")
    print(f"wrote {train} train and {val} val pairs of {height}x{width}")
    print(printable(f"look at them with: python -m trainer data check {name} {root} --subset{again}"))


class Progress:
    """Progress of reading a split: rewritten in place on a terminal, one line per minute in a file."""

    def __init__(self, split: str) -> None:
        self.split = split
        self.terminal = sys.stderr.isatty()
        self.said = time.monotonic()

    def __call__(self, done: int, of: int) -> None:
        """Print the progress, unless the last print is too recent."""
        now = time.monotonic()
        if self.terminal and done == of:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)
        elif now - self.said > (0.1 if self.terminal else 60):
            line = f"{self.split}: {done} of {of} read"
            print(f"\r\x1b[2K{line}" if self.terminal else line, end="" if self.terminal else "\n", file=sys.stderr)
            sys.stderr.flush()
            self.said = now


def _show(dataset: SegDataset, split: str, contents: Contents, console: Console) -> None:
    """Print one split's size, fingerprint, conditions and class shares."""
    sizes = [f"{size[1]}x{size[0]}" for size, _ in contents.sizes.most_common()]
    size = f"  {sizes[0] if len(sizes) == 1 else f'{len(sizes)} sizes'} (width x height)" if sizes else ""
    identity = contents.fingerprint or "none: no run would start"
    console.print(
        Text.assemble(
            (f"{split:5}  ", "bold"),
            f"{contents.pairs} pairs{size}  fingerprint ",
            (identity, "cyan"),
        ),
        soft_wrap=True,
    )
    if contents.conditions:
        console.print(f"       {', '.join(f'{name} {count}' for name, count in sorted(contents.conditions.items()))}")
    labelled = int(contents.counts.sum())
    if labelled:
        shares = sorted(zip(contents.counts / labelled, dataset.classes, strict=True), reverse=True)
        listed = ", ".join(
            f"{name.replace(' ', NO_BREAK_SPACE)}{NO_BREAK_SPACE}{share:.1%}" for share, name in shares if share > 0
        )
        never = ", ".join(name for share, name in shares if share == 0)
        ignored = contents.ignored / (labelled + contents.ignored)
        text = f"{listed}{f'; never: {never}' if never else ''}; {ignored:.1%} of all pixels ignored"
        for line in textwrap.wrap(text, min(console.width, 120) - 7):
            console.print(Text(f"       {line.replace(NO_BREAK_SPACE, ' ')}", style="dim"))


def _config(name: str, options: list[str] | None, plugin: Path | None) -> DataConfig:
    """The data section that the options describe. The data sets of plugins are then known."""
    from trainer.plugins.load import add

    given = dict(parse_argument(text, "--option", "NAME=VALUE, for example aug=true") for text in options or [])
    data = {"data": {"name": name, "options": given}, "plugins": [plugin.name] if plugin else None}
    folder = plugin.parent if plugin else Path()
    config = parse(with_plugins({k: v for k, v in data.items() if v is not None}, folder), "options")
    add(config.used_plugins)
    return config.data


def _deduplicated(problems: list[str]) -> list[str]:
    """Each problem once (overlapping lists are reported for both splits); each layout only with its first problem."""
    from trainer.data.pairing import EXPECTED

    shown: set[str] = set()
    lines = []
    for problem in dict.fromkeys(problems):
        fault, _, layout = problem.partition(EXPECTED)
        lines.append(fault if layout in shown else problem)
        shown |= {layout} if layout else set()
    return lines
