"""python -m trainer: one model, one process, no cluster."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from trainer.config import NumericalError, UserError, override, parse, read_yaml
from trainer.place import Place, default_cache

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def _verbs() -> None:
    """Train one model of TransKD in one process."""


@app.command()
def fit(
    config: Annotated[Path, typer.Argument(help="YAML file of a TrainConfig")],
    out: Annotated[Path, typer.Option(help="folder of the run; run again to resume")],
    data_root: Annotated[Path | None, typer.Option(help="folder of the data set (scenes makes its own)")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="change one value: optim.lr=0.001")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or auto")] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads")] = 1,
    micro_batch: Annotated[int | None, typer.Option(min=1, help="samples in one forward pass")] = None,
    teacher: Annotated[Path | None, typer.Option(help="weights for a teacher that has a recipe")] = None,
    compile_: Annotated[bool, typer.Option("--compile", help="torch.compile the student")] = False,
) -> None:
    """Train one run to its end; what its folder holds already is not done again."""
    resolved = parse(override(_mapping(read_yaml(config), config), dict(_assignment(text) for text in set_ or [])))
    resolved.optim.shares(1, micro_batch)
    place = Place(
        out_dir=out.absolute(),
        data_root=data_root.absolute() if data_root else None,
        cache_dir=default_cache(),
        device=device,
        threads=threads,
        micro_batch=micro_batch,
        teacher=teacher,
        compile=compile_,
    )
    from trainer.build import check
    from trainer.loop import fit as train

    check(resolved, place.cache_dir)
    result = train(resolved, place, report=Progress(resolved.optim.epochs))
    best = result["best"]
    print(
        f"\nrun {result['run_id']}: val mIoU {result['last']['val/miou']:.2f} at the last epoch, "
        f"{best['val/miou']:.2f} at epoch {best['epoch']:.0f}; record in {out}"
    )


class Progress:
    """A line an epoch: rewritten in place on a terminal, appended to a file."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.started = time.monotonic()
        self.first: float | None = None

    def __call__(self, metrics: dict[str, float], checkpoint: Path | None) -> None:
        """Show the epoch's metrics. `checkpoint` is where it was saved."""
        epoch = metrics["epoch"]
        self.first = self.first or epoch
        left = (self.epochs - epoch) * (time.monotonic() - self.started) / (epoch - self.first + 1)
        losses = " ".join(f"{k.removeprefix('loss/')} {v:.3f}" for k, v in metrics.items() if k.startswith("loss/"))
        miou = f"mIoU {metrics['val/miou']:.2f}  " if "val/miou" in metrics else ""
        line = (
            f"epoch {epoch:.0f}/{self.epochs}  {miou}loss {metrics['loss']:.3f} ({losses})  lr {metrics['lr']:.2e}  "
            f"{metrics['images_per_s']:.1f} img/s  {left:.0f} s left"
        )
        print(f"\r\x1b[2K{line}" if sys.stdout.isatty() else line, end="" if sys.stdout.isatty() else "\n", flush=True)


def _mapping(data: Any, path: Path) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected a mapping of sections (student, data, optim, ...)")
    return data


def _assignment(text: str) -> tuple[str, Any]:
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise UserError(f"--set needs PATH=VALUE, for example optim.lr=0.001, but got {text!r}")
    try:
        return path, yaml.safe_load(value)
    except yaml.YAMLError:
        raise UserError(f"--set {path}: {value!r} is not a YAML value") from None


def in_one_line(action: Callable[[], object], *refusals: type[Exception]) -> None:
    """Do it; a user's mistake (UserError, `refusals`) is one line and exit code 2, a failed run one line and code 1."""
    try:
        action()
    except (UserError, *refusals) as error:  # type: ignore[misc]
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}; correct the path or its permissions", file=sys.stderr)
        sys.exit(2)
    except NumericalError as error:
        print(f"failed: {error}", file=sys.stderr)
        sys.exit(1)
    except SystemExit as end:
        if end.code == 130:  # what typer makes of Ctrl-C
            print("stopped; run the same command again to go on", file=sys.stderr)
        raise


def main() -> None:
    """Run a verb."""
    in_one_line(app)
