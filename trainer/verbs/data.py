"""data check, data make: check a data set's folder before training; write a tiny data set in its layout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trainer.config import printable
from trainer.place import default_cache
from trainer.verbs.data_init import init
from trainer.verbs.data_named import Name, Options, PluginFile, section
from trainer.verbs.data_report import report
from trainer.verbs.data_show import show
from trainer.verbs.options import parse_size

app = typer.Typer(
    no_args_is_help=True, help="A data set's folder: check it, look at it, describe your own, make a tiny one."
)
app.command()(init)
app.command()(show)


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

    config = section(name, option, plugin)
    dataset = open_dataset(config, root.absolute() if root else None, default_cache())
    if report(dataset, config.name, subset=subset)[0]:
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

    config = section(name, option, plugin)
    name = config.name
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
