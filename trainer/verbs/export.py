"""export: the student without distillation modules as ONNX, in float32 and INT8, compared with torch on real images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainer.config import UserError, counted, printable, require
from trainer.config.input_files import check_output
from trainer.files.atomic import replacing
from trainer.place import default_cache
from trainer.verbs import options

if TYPE_CHECKING:
    import numpy as np

    from trainer.data import SegDataset
    from trainer.deploy.int8 import Quantised
    from trainer.deploy.open import Student
    from trainer.deploy.parity import Parity

IMAGES = 16
"""Most images to compare on, spaced evenly over those available."""


def export(
    checkpoint: options.Checkpoint,
    out: Annotated[Path, typer.Option(metavar="FILE", help="the file to write, for example student.onnx")],
    images: Annotated[
        Path | None, typer.Option(help="image or folder of images to compare on (default: the data set's val)")
    ] = None,
    data_root: options.DataRoot = None,
    dynamic: Annotated[
        bool, typer.Option("--dynamic", help="leave the number of images, their height and their width open")
    ] = False,
    full_size: Annotated[
        bool, typer.Option("--full-size", help="logits at the input's size, upsampled in the graph, not at a quarter")
    ] = False,
    opset: Annotated[int, typer.Option(min=18, max=23, help="version of the ONNX operators")] = 20,
    int8: Annotated[
        bool, typer.Option("--int8", help="also write FILE-int8, calibrated on images of train, and measure its mIoU")
    ] = False,
    config: options.Config = None,
    model: options.Model = None,
    data: options.DataName = None,
    size: options.Size = None,
    normalize: options.Normalize = None,
    threads: options.Threads = 1,
) -> None:
    """Write the student as ONNX and compare it with torch on real images.

    The file is not written when fewer than 99.9 % of pixels get the same class.
    The graph takes uint8 RGB (N, H, W, 3), normalises it and returns logits.
    Its metadata names its origin, classes and colours;
    the distillation modules are not part of it.
    Beside it a model card is written: student.card.md for student.onnx.
    """
    if out.is_dir():
        raise UserError(f"--out {out} is a folder; name a file, for example {out / 'student.onnx'}")
    small, about = out.with_name(f"{out.stem}-int8{out.suffix}"), out.with_suffix(".card.md")
    for written in (out, small, about) if int8 else (out, about):
        options.check_written("--out", written, options.read_with(checkpoint, config))
    require("export", "torch", "onnx", "onnxruntime", "onnxscript")
    import torch

    from trainer.data import open_dataset
    from trainer.deploy.model_card import Exported, card
    from trainer.deploy.onnx import write_onnx
    from trainer.deploy.open import open_student
    from trainer.deploy.parity import compare, in_torch, latency_ms, open_session

    torch.set_num_threads(threads)
    student = open_student(checkpoint, options.wanted(config, model, data, size, normalize), "cpu")
    dataset = None
    if images is None or int8:
        dataset = open_dataset(student.config.data, data_root.absolute() if data_root else None, default_cache())
    pictures = _pictures(student, images, dataset, out)
    options.check_replaced("--out", out, ".onnx")
    splits = None
    if dataset is not None and int8:
        from trainer.deploy.int8 import packed_splits

        splits = packed_splits(student, dataset, default_cache(), print)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as temporary:
        module = write_onnx(temporary, student, opset=opset, full_size=full_size, dynamic=dynamic)
        reference, exported = in_torch(module), open_session(temporary, threads)
        parity = compare((reference(picture), exported(picture)) for picture in pictures)
        require_parity(parity, out)
    height, width = student.config.data.size
    of = "RGB" if student.dataset.channels == 3 else f"of {student.dataset.channels} channels"
    takes = ("images of any multiple of 32" if dynamic else f"one image of {height}x{width}") + f", uint8 {of}"
    print(printable(f"{student.described}; read as {student.read_as}"))
    print(printable(f"{out}: {out.stat().st_size / 1e6:.1f} MB, takes {takes}"))
    print(
        f"onnxruntime beside torch on {counted(parity.images, 'image')}: the same class at "
        f"{100 * parity.agreement:.3f} % of {parity.pixels} pixels, "
        f"logits apart by at most {parity.difference:.1e} (of {parity.largest:.1f})"
    )
    if how := student.config.eval.predictions:
        print(f"the graph is one pass over one image; the run predicts by {how}: repeat that around it")
    times = [latency_ms(run, pictures[0]) for run in (exported, reference)]
    print(
        f"one image takes onnxruntime {times[0]:.1f} ms, torch {times[1]:.1f} ms, on {counted(threads, 'CPU thread')}"
    )
    files = [Exported(out, parity, times[0])]
    if splits is not None:
        from trainer.deploy.int8 import export_int8

        found = export_int8(files[0], small, student, splits, pictures, reference, threads)
        _tell_int8(found, student.config.eval.protocols[0], len(splits[1]))
        files = [found.whole, found.small]
    with replacing(about) as temporary:
        temporary.write_text(card(student, files, takes, student.config.eval.predictions), encoding="utf-8")
    print(printable(f"{about}: its model card"))


def _tell_int8(found: Quantised, protocol: str, images: int) -> None:
    """Print the size of the INT8 file, and what it costs in agreement and mIoU on `images` images of val."""
    whole, small = found.whole.miou, found.small
    size = f"{small.path.stat().st_size / 1e6:.1f} MB"
    print(printable(f"{small.path}: {size}, calibrated on {counted(found.calibrated_on, 'train image')}"))
    print(
        f"INT8 beside torch: the same class at {100 * small.parity.agreement:.3f} % of {small.parity.pixels} pixels; "
        f"one image takes {small.latency_ms:.1f} ms"
    )
    assert whole is not None and small.miou is not None
    print(
        f"val mIoU ({protocol}, {counted(images, 'image')}): {whole:.2f} in float32, {small.miou:.2f} in INT8, "
        f"{small.miou - whole:+.2f}"
    )


def require_parity(parity: Parity, out: Path) -> None:
    """End the program with exit code 1 when onnxruntime and torch disagree; `out` is then not written."""
    if parity.accepted:
        return
    print(
        f"failed: onnxruntime and torch predict the same class at {100 * parity.agreement:.3f} % of "
        f"{parity.pixels} pixels, and 99.9 % are required (logits apart by {parity.difference:.1e}); "
        f"{printable(str(out))} is not written",
        file=sys.stderr,
    )
    sys.exit(1)


def _pictures(student: Student, images: Path | None, dataset: SegDataset | None, out: Path) -> list[np.ndarray]:
    """Up to IMAGES real images (1, H, W, C) at the network's input size, none of which is `out`."""
    import numpy as np

    from trainer.data.packs.packing import resize_image
    from trainer.deploy.predict import find_images

    if dataset is not None:
        check_output("--out", out, options.images_of(dataset, "val"))
    if images is not None:
        found = find_images(images)
        check_output("--out", out, found)
    else:
        assert dataset is not None
        found = [pair.image for pair in dataset.pairs("val")]
    chosen = np.unique(np.linspace(0, len(found) - 1, IMAGES).round().astype(int))
    return [resize_image(student.dataset.read(found[i]), student.config.data.size)[None].copy() for i in chosen]
