"""eval: the metrics of a checkpoint on a data set, by protocol, by class and by condition."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from trainer.config import UserError, counted, printable
from trainer.config.input_files import check_output
from trainer.files.run_folder import write_text
from trainer.place import default_cache
from trainer.verbs import options

if TYPE_CHECKING:
    from trainer.config import TrainConfig
    from trainer.data import PackedSplit
    from trainer.deploy.open import Student

PROTOCOLS = ("full", "paper")


def evaluate(
    checkpoint: options.Checkpoint,
    data_root: options.DataRoot = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            help="full: labels at their own size; paper: at a quarter of the input; repeatable (default: the config's)"
        ),
    ] = None,
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="which images")] = "val",
    json_: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="write all numbers there")] = None,
    config: options.Config = None,
    model: options.Model = None,
    data: options.DataName = None,
    size: options.Size = None,
    normalize: options.Normalize = None,
    window: options.Window = None,
    stride: options.Stride = None,
    whole: options.Whole = False,
    flip: options.Flip = None,
    scales: options.Scales = None,
    device: options.Device = "auto",
    threads: options.Threads = 1,
    batch: options.Batch = 8,
) -> None:
    """Measure a checkpoint: mIoU of each protocol, then every class and every condition of the data set.

    A run's own checkpoint, measured as in its run, gives the mIoU that the run recorded. The recorded mIoU is printed
    too, with its protocol, and with what it was measured on unless that is known to be the same.
    """
    if json_ is not None:
        options.check_written("--json", json_, options.read_with(checkpoint, config))
    import torch

    from trainer.data import check_splits, open_dataset
    from trainer.deploy.open import open_student, run_config
    from trainer.deploy.remeasure import measure

    unknown = set(protocol or ()) - set(PROTOCOLS)
    if unknown:
        raise UserError(f"--protocol must be {' or '.join(PROTOCOLS)} but got {', '.join(sorted(unknown))!r}")
    torch.set_num_threads(threads)
    wanted = options.wanted(config, model, data, size, normalize)
    wanted = wanted._replace(predictions=options.predictions(window, stride, whole, flip, scales))
    student = open_student(checkpoint, wanted, device)
    run = run_config(checkpoint, wanted) if "val/miou" in student.origin else None
    dataset = open_dataset(student.config.data, data_root.absolute() if data_root else None, default_cache())
    check_splits(student.config.data.name, dataset.splits, [split], "--split")
    if json_ is not None:
        check_output("--json", json_, options.images_of(dataset, split))
        options.check_replaced("--json", json_, ".json")
    protocols = tuple(dict.fromkeys(protocol or student.config.eval.protocols))
    metrics, packed = measure(student, dataset, default_cache(), split, protocols, batch, print)
    for line in report(student, run, packed, split, protocols, metrics):
        print(printable(line))
    if json_ is not None:
        told = {
            "origin": student.origin,
            "config": student.config.model_dump(mode="json"),
            "split": split,
            "fingerprint": packed.fingerprint,
            "metrics": metrics,
        }
        json_.parent.mkdir(parents=True, exist_ok=True)
        write_text(json_, json.dumps(told, indent=1) + "\n")


def report(
    student: Student,
    run: TrainConfig | None,
    packed: PackedSplit,
    split: str,
    protocols: tuple[str, ...],
    metrics: dict[str, float],
) -> list[str]:
    """The printed lines: weights, data, mIoU by protocol and condition, and one row per class."""
    config, names = student.config, student.dataset.classes
    where = {name: split if name == protocols[0] else f"{split}/{name}" for name in protocols}
    height, width = config.data.size
    present = metrics[f"{split}/classes_present"]
    lines = [
        f"weights   {student.described}",
        f"read as   {student.read_as}",
        f"data      {config.data.name} {split}: {counted(len(packed), 'image')} at {height}x{width}, "
        f"{present:.0f} of {len(names)} classes occur, fingerprint {packed.fingerprint}",
        "mIoU      " + "   ".join(f"{_percent(metrics, f'{at}/miou')} {name}" for name, at in where.items()),
    ]
    if config.eval.predictions:
        lines.insert(3, f"predicted {config.eval.predictions}")
    if "val/miou" in student.origin:
        lines.append(f"recorded  {student.origin['val/miou']:.2f} {recorded_on(student, run, packed)}")
    conditions = [key.split("/")[1] for key in metrics if key.endswith("/classes_present")]
    conditions = [name for name in conditions if name not in ("classes_present", *protocols)]
    wide = max(len(name) for name in ("condition", *names)) + 2
    if conditions:
        lines += ["", f"{'condition':<{wide}}{protocols[0]:>8}"]
        lines += [f"{name:<{wide}}{_percent(metrics, f'{split}/{name}/miou'):>8}" for name in conditions]
    lines += ["", f"{'class':<{wide}}" + "".join(f"{name:>8}" for name in protocols) + "  % of pixels"]
    labelled = max(packed.class_counts.sum(), 1)
    for name, count in zip(names, packed.class_counts, strict=True):
        cells = "".join(f"{_percent(metrics, f'{at}/iou/{name}'):>8}" for at in where.values())
        lines.append(f"{name:<{wide}}{cells}{100 * count / labelled:13.2f}")
    return lines


def _percent(metrics: dict[str, float], name: str) -> str:
    """A metric with two decimals; `-` where it has no value, because no pixel is labelled."""
    return f"{metrics[name]:.2f}" if name in metrics else "-"


def recorded_on(student: Student, run: TrainConfig | None, packed: PackedSplit) -> str:
    """What to print after a recorded mIoU: its protocol, and what it was measured on unless that is as it is now.

    Images are the same where their fingerprints are, whatever the configs say.
    """
    recorded = student.origin.get("val/fingerprint")
    images = f"images with fingerprint {recorded}" if recorded else "images whose fingerprint it did not record"
    if run is None:
        other = "" if recorded == packed.fingerprint else f", on {images}"
        return f"by its run{other}; no config.yaml beside the checkpoint"
    words = f"{run.eval.protocols[0]} by its run"
    then, now = run.data, student.config.data
    height, width = then.size
    where = f"on {then.name} val at {height}x{width}, normalize {then.normalize}"
    if recorded != packed.fingerprint:
        return f"{words}, {where}, {images}"
    if (ours := run.eval.predictions) != student.config.eval.predictions:
        words += f", predicted by {ours or 'one pass over the image'}"
    return words if (then.size, then.normalize) == (now.size, now.normalize) else f"{words}, {where}"
