"""fit: train one model, or several side by side, in one process, no cluster."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from trainer.compiler import check_compiler
from trainer.config import (
    TrainConfig,
    UserError,
    check_cohort,
    located,
    masked,
    message_of,
    override,
    parse,
    parse_argument,
    printable,
    read_yaml,
    refuse_secrets,
    require,
    weight_names,
    with_plugins,
    with_recipe,
)
from trainer.config.input_files import check_output, holds
from trainer.files.failure import failure_of
from trainer.files.run_folder import WRITTEN, check_config, lock_folder
from trainer.files.weight_files import weight_files
from trainer.place import Place, default_cache
from trainer.verbs.options import DataRoot, Device, Threads
from trainer.verbs.progress import Progress

if TYPE_CHECKING:
    from trainer.data import SegDataset

SPLITS: tuple[Literal["train", "val"], ...] = ("train", "val")


@dataclass(frozen=True)
class Asked:
    """A run that is asked for: the file of its config, the config, its folder as given, and its place."""

    file: Path
    config: TrainConfig
    out: Path
    place: Place
    name: str
    """Its name where there are several runs, else ""."""

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Errors of one of several runs begin with the file of its config."""
        try:
            yield
        except UserError as error:
            if not self.name:
                raise
            raise UserError(f"{self.file}: {message_of(error)}") from None


def fit(
    configs: Annotated[
        list[Path], typer.Argument(metavar="CONFIG...", help="YAML file of a TrainConfig; several train side by side")
    ],
    out: Annotated[Path, typer.Option(help="folder of the run, or of one folder for each; run again to resume")],
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
    compile_: Annotated[bool, typer.Option("--compile", help="torch.compile teacher, student and paths")] = False,
    deterministic: Annotated[bool, typer.Option(help="on a GPU, repeat runs bit for bit; slower")] = False,
) -> None:
    """Train a run to its end, or several side by side with one pass of their teacher; run again to resume."""
    require("fit", "torch")
    if continue_ is not None and len(configs) > 1:
        raise UserError(f"--continue is for one run but got {len(configs)} configs; give one")
    given = dict(parse_argument(text, "--set", "PATH=VALUE, for example optim.lr=0.001") for text in set_ or [])
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
        deterministic=deterministic,
    )
    if compile_:
        check_compiler(device)
    runs = []
    for file, name in zip(configs, names(configs), strict=True):
        data = _mapping(read_yaml(file), file)
        with located(str(file)):
            data = with_recipe(data)
        asked = with_plugins(override(data, given), file.parent)
        config = parse(asked, str(file) if name else "config")
        runs.append(Asked(file, config, out / name, replace(place, out_dir=place.out_dir / name), name))
    check_runs(runs)
    train(runs, continue_)


def names(configs: Sequence[Path]) -> list[str]:
    """The names of several runs, which are their folders' below --out; one run has the name "".

    Raises UserError where two would have one folder.
    """
    if len(configs) == 1:
        return [""]
    found: dict[str, Path] = {}
    for path in configs:
        other = found.setdefault(path.stem, path)
        if other is not path:
            raise UserError(f"{other} and {path} would both train in the folder {path.stem} below --out; rename one")
    return list(found)


def check_runs(runs: Sequence[Asked]) -> None:
    """Raise UserError where a run cannot be trained, all of them not side by side, or one would write over a file."""
    check_cohort([run.config for run in runs], [str(run.file) for run in runs])
    for run in runs:
        with run.named():
            refuse_secrets(run.config.model_dump(mode="json", exclude={"plugins"}))
            run.config.optim.shares(1, run.place.micro_batch)
            check_inputs(run.out, run.file, run.config, run.place.teacher)
            check_config(run.place.out_dir, run.config)
    from trainer.data import check_root, open_dataset
    from trainer.plugins.load import activate
    from trainer.training.build import check, open_data

    activate(plugin for run in runs for plugin in run.config.used_plugins)
    data, splits, place = runs[0].config.data, runs[0].config.eval.splits, runs[0].place  # those of all runs
    check_root(data, place.data_root, place.cache_dir, splits)
    dataset = open_dataset(data, place.data_root, place.cache_dir) if place.data_root is not None else None
    for run in runs:
        if dataset is not None:
            check_outside(run.out, dataset)
        with run.named():
            check(run.config, place.cache_dir)
    open_data(runs[0].config, place, print)


def train(runs: Sequence[Asked], before: Path | None) -> None:
    """Train the runs and print how they went. A single run takes over the epochs of `before`."""
    from trainer.training.continued import continue_run
    from trainer.training.loop import fit_together
    from trainer.training.member import Run

    causes: dict[str, str] = {}
    with contextlib.ExitStack() as locks:
        for run in runs:
            locks.enter_context(lock_folder(run.place.out_dir))
        if before is not None:
            continue_run(before, runs[0].config, runs[0].place)
        results = fit_together(
            [
                Run(run.config, run.place, Progress(run.config.optim.epochs, run.name), ended(run.name, causes))
                for run in runs
            ]
        )
    for run, result in zip(runs, results, strict=True):
        if result is not None:
            print_result(run, result)
    if causes:
        raise typer.Exit(2 if set(causes.values()) == {"user"} else 1)


def ended(name: str, causes: dict[str, str]) -> Callable[[Exception | None], None] | None:
    """Prints the failure of one of several runs and adds its cause to `causes`; of a single run it is raised."""

    def tell(error: Exception | None) -> None:
        if error is None:
            return
        cause, reason = failure_of(error)
        if cause == "bug":
            print(masked("".join(traceback.format_exception(error))), file=sys.stderr)
        print(printable(masked(f"{name} failed: {reason}")), file=sys.stderr, flush=True)
        causes[name] = cause

    return tell if name else None


def print_result(run: Asked, result: dict[str, Any]) -> None:
    """A finished run's scores, and where its record is."""
    best, name = result["best"], run.name and f"{run.name}, "
    print(
        f"\n{name}run {result['run_id']}: val mIoU {result['last']['val/miou']:.2f} at the last epoch, "
        f"{best['val/miou']:.2f} at epoch {best['epoch']:.0f}; record in {printable(str(run.out))}"
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


def _mapping(data: Any, path: Path) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected a mapping of sections (student, data, optim, ...)")
    if "base" in data:  # a section that only studies have
        raise UserError(f"{path} is a study, which has many runs; run it with: transkd run {path}")
    return data
