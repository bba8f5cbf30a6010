"""fit: train one model in one process, no cluster."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from trainer.config import TrainConfig, UserError, override, parse, parse_argument, printable, read_yaml, weight_names
from trainer.config.input_files import check_output, holds
from trainer.files.run_folder import WRITTEN, check_config, lock_folder
from trainer.files.weight_files import weight_files
from trainer.place import Place, default_cache
from trainer.verbs.options import DataRoot, Device, Threads

if TYPE_CHECKING:
    from trainer.data import SegDataset

SPLITS: tuple[Literal["train", "val"], ...] = ("train", "val")


def fit(
    config: Annotated[Path, typer.Argument(help="YAML file of a TrainConfig")],
    out: Annotated[Path, typer.Option(help="folder of the run; run again to resume")],
    data_root: DataRoot = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="change one value: optim.lr=0.001")] = None,
    device: Device = "auto",
    threads: Threads = 1,
    micro_batch: Annotated[int | None, typer.Option(min=1, help="samples in one forward pass")] = None,
    teacher: Annotated[Path | None, typer.Option(help="weights for a teacher that has a recipe")] = None,
    continue_: Annotated[
        Path | None,
        typer.Option("--continue", metavar="RUN", help="take over the epochs of a run that only has fewer of them"),
    ] = None,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="epochs from one checkpoint to the next")] = 1,
    compile_: Annotated[bool, typer.Option("--compile", help="torch.compile the student")] = False,
) -> None:
    """Train one run to its end; run again to resume."""
    given = dict(parse_argument(text, "--set", "PATH=VALUE, for example optim.lr=0.001") for text in set_ or [])
    resolved = parse(override(_mapping(read_yaml(config), config), given))
    resolved.optim.shares(1, micro_batch)
    place = Place(
        out_dir=out.absolute(),
        data_root=data_root.absolute() if data_root else None,
        cache_dir=default_cache(),
        device=device,
        threads=threads,
        micro_batch=micro_batch,
        teacher=teacher,
        checkpoint_every=checkpoint_every,
        compile=compile_,
    )
    check_inputs(out, config, resolved, teacher)
    check_config(place.out_dir, resolved)
    from trainer.data import check_root, open_dataset
    from trainer.training.build import check, open_data
    from trainer.training.continued import continue_run
    from trainer.training.loop import fit as train

    check_root(resolved.data, place.data_root, place.cache_dir)
    if place.data_root is not None:
        check_outside(out, open_dataset(resolved.data, place.data_root, place.cache_dir))
    check(resolved, place.cache_dir)
    open_data(resolved, place, print)
    with lock_folder(place.out_dir):
        if continue_ is not None:
            continue_run(continue_, resolved, place)
        result = train(resolved, place, report=Progress(resolved.optim.epochs))
    best = result["best"]
    print(
        f"\nrun {result['run_id']}: val mIoU {result['last']['val/miou']:.2f} at the last epoch, "
        f"{best['val/miou']:.2f} at epoch {best['epoch']:.0f}; record in {printable(str(out))}"
    )
    for network, used in result["weights"].items():
        if "note" in used:
            print(f"{network}: normalize is {used['normalize']}, but {used['note']}")


def check_inputs(out: Path, config: Path, resolved: TrainConfig, teacher: Path | None) -> None:
    """Raise UserError where the run in `out` would write over a file that it reads."""
    weights = [path for path in (*map(Path, weight_names(resolved)), teacher) if path is not None and path.exists()]
    inputs = [config, *(file for path in weights for file in weight_files(path))]
    for name in WRITTEN:
        check_output("--out", out / name, inputs)


def check_outside(out: Path, dataset: SegDataset) -> None:
    """Raise UserError where `out` lies in a folder of images or labels, which panel.png would then belong to."""
    pairs = [pair for split in SPLITS for pair in dataset.pairs(split)]
    for folder in {path.parent for pair in pairs for path in (pair.image, pair.label)}:
        if holds(folder, out):
            raise UserError(f"--out {out} lies in {folder}, whose files are the data; choose another folder")


class Progress:
    """One line per epoch: rewritten in place on a terminal, appended in a file."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.started = time.monotonic()
        self.first: float | None = None

    def __call__(self, metrics: dict[str, float], checkpoint: Path | None) -> None:
        """Show the epoch's metrics. `checkpoint` is where it was saved."""
        epoch = metrics["epoch"]
        self.first = self.first or epoch
        left = (self.epochs - epoch) * (time.monotonic() - self.started) / (epoch - self.first + 1)
        losses = " ".join(f"{k.removeprefix('loss/')} {_short(v)}" for k, v in metrics.items() if k.startswith("loss/"))
        miou = f"mIoU {metrics['val/miou']:.2f}  " if "val/miou" in metrics else ""
        line = (
            f"epoch {epoch:.0f}/{self.epochs}  {miou}loss {_short(metrics['loss'])} ({losses})  "
            f"lr {metrics['lr']:.2e}  {metrics['images_per_s']:.1f} img/s  {left:.0f} s left"
        )
        print(f"\r\x1b[2K{line}" if sys.stdout.isatty() else line, end="" if sys.stdout.isatty() else "\n", flush=True)


def _short(loss: float) -> str:
    """Three decimals; two significant digits below 0.01."""
    return f"{loss:.3f}" if abs(loss) >= 0.01 else f"{loss:.2g}"


def _mapping(data: Any, path: Path) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected a mapping of sections (student, data, optim, ...)")
    if "base" in data:  # a section that only studies have
        raise UserError(f"{path} is a study, which has many runs; run it with: transkd run {path}")
    return data
