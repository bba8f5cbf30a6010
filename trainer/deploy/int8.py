"""The exported student in INT8: onnxruntime's static quantisation, calibrated on images of the train split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from trainer.data import PackedSplit
from trainer.deploy.onnx import INPUT
from trainer.training.evaluation import metrics
from trainer.training.evaluation.evaluate import labels_of
from trainer.training.evaluation.prediction import class_of

IMAGES = 64
"""Most images to calibrate on, spaced evenly over the train split."""
OPERATORS = ("Conv", "Gemm", "MatMul")
"""What is computed in INT8; norms, softmax and upsampling stay in float32."""


class Images(CalibrationDataReader):
    """The images of a split that the ranges of the activations are measured on."""

    def __init__(self, split: PackedSplit) -> None:
        chosen = np.unique(np.linspace(0, len(split) - 1, IMAGES).round().astype(int))
        self.count = len(chosen)
        self._left: Iterator[np.ndarray] = (split.images([index]) for index in chosen)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next image as the graph takes it; None after the last."""
        image = next(self._left, None)
        return None if image is None else {INPUT: image}


def quantise(exported: Path, out: Path, images: Images) -> None:
    """Write the graph of `exported` with INT8 weights (a scale a channel) and INT8 activations (a scale a tensor)."""
    with TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(exported, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            out,
            images,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(OPERATORS),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def miou_of(
    run: Callable[[np.ndarray], np.ndarray], split: PackedSplit, classes: tuple[str, ...], protocol: str
) -> float:
    """The mIoU in percent of a graph's logits on a whole split, one pass an image. NaN where no pixel is labelled."""
    counts = torch.zeros((), dtype=torch.int64)
    for index in range(len(split)):
        logits = torch.from_numpy(run(split.images([index])))
        (same,) = labels_of(split, np.array([index]), protocol, np.zeros(1, dtype=int))
        prediction = class_of([logits], same.labels.shape[1:])
        counts = counts + metrics.confusion(prediction, torch.from_numpy(same.labels), len(classes), logits.shape[1])
    found = metrics.summary(counts, classes, "val", absent_is_zero=protocol == "paper")
    return found.get("val/miou", float("nan"))
