"""Evaluation, milliseconds an image: ours, and image by image as it was before, on the same logits and labels.

Random images at the input's size, labels at the label's size, SegFormer-B0. All numbers of both are compared.
Run: python benchmarks/evaluation.py [HEIGHT WIDTH [LABEL_HEIGHT LABEL_WIDTH [IMAGES]]]
"""

from __future__ import annotations

import statistics
import sys
import time

import torch
import torch.nn.functional as F
from ratios import record
from torch import Tensor

from trainer.config import DataConfig, ModelConfig
from trainer.data import PackedSplit
from trainer.models import build_model
from trainer.models.base import SegModel
from trainer.probe import FakeSplit
from trainer.training.evaluation import metrics
from trainer.training.evaluation.evaluate import evaluate
from trainer.training.evaluation.inference import logits_of

CLASSES = 19
NAMES = tuple(f"class{i}" for i in range(CLASSES))


@torch.no_grad()
def image_by_image(model: SegModel, split: PackedSplit, data: DataConfig, device: torch.device) -> dict[str, float]:
    """The protocol `full` without batches of labels, without reading ahead, copying counts each time."""
    counts = torch.zeros(CLASSES, CLASSES, dtype=torch.int64)
    model.eval()
    for first in range(0, len(split), 8):
        chunk = range(first, min(first + 8, len(split)))
        (logits,) = logits_of(model, split.images(chunk), data, device)
        for one, index in zip(logits.split(1), chunk, strict=True):
            label = split.native_label(index)
            full = F.interpolate(one, size=label.shape, mode="bilinear", align_corners=False)
            counts += confusion(full.argmax(1)[0], torch.from_numpy(label.copy()).to(device)).cpu()
    return metrics.summary(counts, NAMES, "val", absent_is_zero=False)


def confusion(prediction: Tensor, label: Tensor) -> Tensor:
    """Counts (K, K) in int64 throughout."""
    row = label.to(torch.int64).clamp(max=CLASSES).flatten()
    index = row * CLASSES + prediction.flatten()
    return torch.bincount(index, minlength=(CLASSES + 1) * CLASSES).view(CLASSES + 1, CLASSES)[:CLASSES]


def main() -> None:
    """Measure and print."""
    given = [int(text) for text in sys.argv[1:]]
    height, width, label_height, label_width, images = given + [512, 1024, 1024, 2048, 8][len(given) :]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = DataConfig(size=(height, width))
    model = build_model(ModelConfig(name="segformer_b0"), CLASSES).to(device)
    split = FakeSplit(images, (height, width), (label_height, label_width), CLASSES)
    network = torch.no_grad()(lambda: logits_of(model.eval(), split.images(range(images)), data, device))
    variants = {
        "image by image": lambda: image_by_image(model, split, data, device),
        "ours": lambda: evaluate(model, split, NAMES, data, ("full",)),
        "the network alone": network,
    }
    assert variants["image by image"]() == variants["ours"](), "both must give the same numbers"
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(5):
        for name, run in variants.items():
            started = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            times[name].append((time.perf_counter() - started) / images * 1000)
    first = statistics.median(times["image by image"])
    print(
        f"SegFormer-B0, {images} images {height}x{width}, labels {label_height}x{label_width}, {device}, "
        f"{torch.get_num_threads()} threads"
    )
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:20} {median:8.1f} ms an image   {first / median:5.2f} x   (least {min(values):.1f})")
    what = f"evaluation, B0, {height}x{width}, labels {label_height}x{label_width}, {device}"
    record(f"{what}: image by image over ours", first / statistics.median(times["ours"]))


if __name__ == "__main__":
    main()
