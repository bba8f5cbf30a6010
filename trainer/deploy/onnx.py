"""The student as one ONNX file whose input is a uint8 RGB image; normalisation is part of the graph."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.config import DataConfig, UserError
from trainer.data.stream import normalise
from trainer.deploy.open import Student
from trainer.measure.complexity import parameters
from trainer.models.base import LOGITS, SegModel

INPUT, OUTPUT = "image", "logits"
STEP = 32
"""Stride of the deepest stage, in pixels."""

_OPEN_EXAMPLE = (2, 3 * STEP, 5 * STEP)
"""Number, height and width of the images to trace with open axes: torch.export takes a 1 on an axis, such as one
position of the deepest stage, for a constant, whatever size the student was trained at."""


class Deployed(nn.Module):
    """A student with its normalisation: uint8 images to logits, so that applications need not repeat it."""

    def __init__(self, model: SegModel, data: DataConfig, full_size: bool) -> None:
        super().__init__()
        self.model, self.normalize, self.full_size = model, data.normalize, full_size

    def forward(self, image: Tensor) -> Tensor:
        """image (N, H, W, C) uint8 -> logits (N, P, H/4, W/4), or (N, P, H, W) where `full_size`, float32."""
        x = normalise(image.permute(0, 3, 1, 2), self.normalize)
        logits = self.model(x, None, LOGITS).logits
        assert logits is not None
        if self.full_size:
            logits = F.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=False)
        return logits


def write_onnx(path: Path, student: Student, *, opset: int, full_size: bool, dynamic: bool) -> Deployed:
    """Export a student on the CPU in float32 to one file, weights inside; returns the module that was exported.

    The graph takes one image of `data.size`, or with `dynamic` any number of images whose sides are multiples of 32, so
    that all stages divide evenly. Raises UserError when `data.size` is no such multiple.
    """
    size = student.config.data.size
    if dynamic and any(side % STEP for side in size):
        raise UserError(f"--dynamic needs sizes that are multiples of {STEP}, but got {size[0]}x{size[1]}; give --size")
    shape = _OPEN_EXAMPLE if dynamic else (1, *size)
    module = Deployed(student.model, student.config.data, full_size).eval()
    with _quiet():
        program = torch.onnx.export(
            module,
            (torch.zeros(*shape, student.dataset.channels, dtype=torch.uint8),),
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=opset,
            dynamic_shapes={INPUT: _open_axes()} if dynamic else None,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(metadata(student, full_size, dynamic))
    program.save(path, external_data=False)
    return module


def _open_axes() -> dict[int, Any]:
    sides = {axis: STEP * torch.export.Dim(name, min=1) for axis, name in ((1, "rows"), (2, "columns"))}
    return {0: torch.export.Dim("batch", min=1), **sides}


def metadata(student: Student, full_size: bool, dynamic: bool) -> dict[str, str]:
    """What users of the file need to know, as ONNX `metadata_props`; lists are JSON."""
    height, width = student.config.data.size
    channels = student.dataset.channels
    of = "RGB (N, H, W, 3)" if channels == 3 else f"(N, H, W, {channels})"
    told = {
        "input": f"{INPUT}: uint8 {of}, resized bilinearly; normalisation is inside the graph",
        "input_size": json.dumps([height, width]),
        "sizes": f"any multiple of {STEP}" if dynamic else f"{height}x{width} only",
        "normalize": str(student.config.data.normalize),
        "output": f"{OUTPUT}: float32 (N, outputs, " + ("H, W)" if full_size else "H/4, W/4)"),
        "outputs": str(student.model.channels.classes),
        "classes": json.dumps(student.dataset.classes),
        "palette": json.dumps(student.dataset.palette),
        "model": student.config.student.name,
        "parameters": str(parameters(student.model)),
        "data": student.config.data.name,
        "config": student.config.model_dump_json(),
    }
    told |= {"inference": how} if (how := student.config.eval.predictions) else {}
    return told | {f"origin.{name}": str(value) for name, value in student.origin.items()}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's FutureWarning and its optimiser's log, which do not concern the user."""
    log = logging.getLogger("onnxscript.optimizer")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        log.setLevel(level)
