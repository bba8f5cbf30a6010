"""The exported student in INT8: onnxruntime's static quantisation, calibrated on train and measured on val."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from trainer.data import PackedSplit, SegDataset, check_splits, pack
from trainer.deploy.model_card import Exported
from trainer.deploy.onnx import INPUT
from trainer.deploy.open import Student
from trainer.deploy.parity import compare, latency_ms, open_session
from trainer.files.atomic import replacing
from trainer.training.evaluation import metrics
from trainer.training.evaluation.evaluate import labels_of
from trainer.training.evaluation.prediction import class_of

IMAGES = 64
"""Most images to calibrate on, spaced evenly over the train split."""
OPERATORS = ("Conv", "Gemm", "MatMul")
"""What is computed in INT8; norms, softmax and upsampling stay in float32."""


class Quantised(NamedTuple):
    """An INT8 file and the float32 file that it was made of, both with their mIoU on val."""

    whole: Exported
    small: Exported
    calibrated_on: int
    """The number of train images."""


def packed_splits(
    student: Student, dataset: SegDataset, cache: Path, say: Callable[[str], None]
) -> tuple[PackedSplit, PackedSplit]:
    """The packed train and val splits. Raises UserError where the data set has none."""
    check_splits(student.config.data.name, dataset.splits, ["train", "val"], "--int8")
    train = pack(dataset, student.config.data, "train", cache, native=False, say=say)
    return train, pack(dataset, student.config.data, "val", cache, say=say)


def export_int8(
    whole: Exported,
    out: Path,
    student: Student,
    splits: tuple[PackedSplit, PackedSplit],
    pictures: list[np.ndarray],
    reference: Callable[[np.ndarray], np.ndarray],
    threads: int,
) -> Quantised:
    """Write `out`, the INT8 graph of `whole`, calibrated on the first split. It is compared with `reference` on the
    pictures (1, H, W, C), and its mIoU with that of `whole` on the second split."""
    train, val = splits
    images = Images(train)
    with replacing(out) as temporary:
        quantise(whole.path, temporary, images)
        sessions = [open_session(whole.path, threads), open_session(temporary, threads)]
        parity = compare((reference(picture), sessions[1](picture)) for picture in pictures)
    protocol = student.config.eval.protocols[0]
    mious = [miou_of(run, val, student.dataset.classes, protocol) for run in sessions]
    small = Exported(out, parity, latency_ms(sessions[1], pictures[0]), mious[1])
    return Quantised(whole._replace(miou=mious[0]), small, images.count)


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
