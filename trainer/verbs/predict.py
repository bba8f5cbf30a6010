"""predict: write colour masks, overlays and class ids of images."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from trainer.config import UserError, counted, printable
from trainer.config.input_files import check_output
from trainer.verbs import options

if TYPE_CHECKING:
    from trainer.deploy.predict import Kind


def predict(
    checkpoint: options.Checkpoint,
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="an image, or a folder of them, searched through")],
    out: Annotated[Path, typer.Option(help="folder to write to; run again to resume")],
    masks: Annotated[bool, typer.Option(help="OUT/masks: the colours of the data set")] = True,
    overlays: Annotated[bool, typer.Option(help="OUT/overlays: half image, half mask")] = True,
    ids: Annotated[
        Literal["train", "label"] | None,
        typer.Option(help="OUT/train_ids: class indices from 0; OUT/label_ids: what the Cityscapes server wants"),
    ] = None,
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
    batch: options.Batch = 4,
) -> None:
    """Label every pixel of images, at their own size.

    For the Cityscapes server: --ids label, then zip OUT/label_ids alone.
    It wants label ids (not train ids) in PNGs of the images' own 2048x1024,
    one an image, named CITY_SEQUENCE_FRAME*.png: as they are written.
    """
    asked: dict[Kind, bool] = {
        "masks": masks,
        "overlays": overlays,
        "train_ids": ids == "train",
        "label_ids": ids == "label",
    }
    kinds = tuple(kind for kind, wanted in asked.items() if wanted)
    if not kinds:
        raise UserError("nothing to write; leave out --no-masks or --no-overlays, or give --ids")
    import torch

    from trainer.deploy.open import open_student
    from trainer.deploy.predict import MANIFEST, find_images, label_ids, mark_folder, plan, unfinished
    from trainer.deploy.predict import predict as label

    torch.set_num_threads(threads)
    check_output("--out", out / MANIFEST, [])
    jobs = plan(images, find_images(images), out, kinds)
    wanted = options.wanted(config, model, data, size, normalize)
    wanted = wanted._replace(predictions=options.predictions(window, stride, whole, flip, scales))
    student = open_student(checkpoint, wanted, device)
    if ids == "label":
        label_ids(student.dataset.classes)
    mark_folder(out, student)
    print(printable(f"{student.described}; read as {student.read_as}"))
    missing = unfinished(jobs)
    show = Counter(len(missing))
    failures = []
    for _, error in label(student, missing, batch):
        show()
        if error is not None:
            failures.append(error)
    labelled = f"{counted(len(missing) - len(failures), 'image')} labelled"
    before = f", {len(jobs) - len(missing)} were before" if len(missing) < len(jobs) else ""
    print(f"{labelled}{before}: {', '.join(kinds)} in {printable(str(out))}")
    if failures:
        print(
            f"failed: {len(failures)} of {counted(len(jobs), 'image')}:",
            *map(printable, failures),
            sep="\n  ",
            file=sys.stderr,
        )
        sys.exit(1)


class Counter:
    """Progress by images: rewritten in place on a terminal, one line every ten seconds elsewhere."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self.started = self.said = time.monotonic()

    def __call__(self) -> None:
        """Count one image and print the progress, unless the last print is too recent."""
        self.done += 1
        now = time.monotonic()
        terminal = sys.stdout.isatty()
        if not terminal and now - self.said < 10:
            return
        self.said = now
        left = (self.total - self.done) * (now - self.started) / self.done
        speed = self.done / max(now - self.started, 1e-9)
        line = f"{self.done}/{self.total} images  {speed:.1f} img/s  {left:.0f} s left"
        end = "\n" if not terminal or self.done == self.total else ""
        print(f"\r\x1b[2K{line}" if terminal else line, end=end, flush=True)
