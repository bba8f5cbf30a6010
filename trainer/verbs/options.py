"""The command-line options that several commands share, as annotated types."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from trainer.config import UserError
from trainer.config.input_files import check_output
from trainer.files.run_folder import WRITTEN

if TYPE_CHECKING:
    from trainer.data import SegDataset
    from trainer.deploy.open import Wanted

CONFIG = "config.yaml"
"""Of a run's folder, beside the files that a run writes over."""

Checkpoint = Annotated[
    Path,
    typer.Argument(
        metavar="CHECKPOINT",
        help="of a run last.pt (the last epoch, which tables are of) or best.pt (the epoch with the highest val/miou), "
        "or public weights (then also --model, --data, --size)",
    ),
]
Config = Annotated[
    Path | None,
    typer.Option("--config", help="YAML of the TrainConfig (default: the config.yaml beside the checkpoint)"),
]
Model = Annotated[str | None, typer.Option("--model", help="network of weights that no config belongs to")]
DataName = Annotated[
    str | None, typer.Option("--data", help="data set whose classes the weights know (default: the config's)")
]
Size = Annotated[
    str | None, typer.Option("--size", metavar="HxW", help="input height and width (default: the config's)")
]
Normalize = Annotated[
    Literal["unit", "imagenet"] | None,
    typer.Option(
        "--normalize", help="what the weights expect of an image (default: the config's, or the weights' family's)"
    ),
]
DataRoot = Annotated[Path | None, typer.Option("--data-root", help="folder of the data set (scenes makes its own)")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1 or auto")]
Threads = Annotated[int, typer.Option("--threads", min=1, help="CPU threads")]
Batch = Annotated[int, typer.Option("--batch", min=1, help="images in one forward pass")]

Window = Annotated[
    str | None, typer.Option("--window", metavar="HxW", help="predict in windows of this size, moved by --stride")
]
Stride = Annotated[
    str | None, typer.Option("--stride", metavar="HxW", help="how far the window moves, down and across")
]
Whole = Annotated[bool, typer.Option("--whole", help="one pass over the image, for a config that has windows")]
Flip = Annotated[
    bool | None, typer.Option("--flip/--no-flip", help="average with the mirrored image (default: the config's)")
]
Scales = Annotated[
    str | None, typer.Option("--scales", metavar="A,B", help="average over these scales, such as 0.75,1,1.25")
]


def wanted(
    config: Path | None,
    model: str | None,
    data: str | None,
    size: str | None,
    normalize: Literal["unit", "imagenet"] | None,
) -> Wanted:
    """The options that describe a checkpoint. Raises UserError for a malformed size."""
    from trainer.deploy.open import Wanted

    return Wanted(config, model, data, None if size is None else parse_size(size), normalize)


def predictions(
    window: str | None, stride: str | None, whole: bool, flip: bool | None, scales: str | None
) -> dict[str, object]:
    """The settings of `eval` that the options name. Raises UserError for what is malformed."""
    found: dict[str, object] = {}
    if whole:
        if window or stride:
            raise UserError("--whole and --window exclude each other; leave one out")
        found = {"inference": "whole", "window": None, "stride": None}
    for name, given in (("window", window), ("stride", stride)):
        if given is not None:
            found |= {"inference": "slide", name: list(parse_size(given, f"--{name}"))}
    if flip is not None:
        found["flip"] = flip
    if scales is not None:
        found["scales"] = [_number(text) for text in scales.split(",")]
    return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(f"--scales must be numbers such as 0.75,1,1.25, but got {text!r}") from None


def read_with(checkpoint: Path, config: Path | None) -> list[Path]:
    """The files that belong to a checkpoint: its own, and those of its run."""
    from trainer.files.weight_files import is_weight_folder, weight_files

    beside = [checkpoint.with_name(name) for name in (CONFIG, *WRITTEN)]
    files = weight_files(checkpoint) if checkpoint.is_file() or is_weight_folder(checkpoint) else ()
    return [*files, *beside, *([config] if config is not None else [])]


def check_written(option: str, out: Path, inputs: Iterable[Path]) -> None:
    """Raise UserError unless `out` can be written: a file, none that is read, and none that a run keeps."""
    check_output(option, out, inputs)
    written = out.resolve()
    if written.name in (CONFIG, *WRITTEN) and (written.exists() or written.with_name(CONFIG).exists()):
        raise UserError(f"{option} {out} is a file of a run; name another file")


def check_replaced(option: str, out: Path, ending: str) -> None:
    """Raise UserError where `out` exists without the ending of what is written, and so is something else."""
    if out.exists() and out.resolve().suffix.lower() != ending:
        raise UserError(f"{option} {out} exists and is no {ending} file; name a new file, or one that ends in {ending}")


def images_of(dataset: SegDataset, split: Literal["train", "val", "test"]) -> Iterator[Path]:
    """The images and labels of a split, found when the first is asked for."""
    for pair in dataset.pairs(split):
        yield from (pair.image, pair.label)


def parse_size(text: str, option: str = "--size") -> tuple[int, int]:
    """(height, width) of `512x1024`."""
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise UserError(f"{option} must be HEIGHTxWIDTH, for example 512x1024, but got {text!r}")
    return int(height), int(width)
