"""Validation: one confusion matrix per protocol over a whole split, summed over workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer import parallel
from trainer.config import DataConfig, TrainConfig
from trainer.data import PackedSplit
from trainer.data.stream import normalise
from trainer.data.transforms import quarter_label
from trainer.models.base import LOGITS, SegModel
from trainer.training import metrics
from trainer.training.build import Data


def validate(student: SegModel, data: Data, config: TrainConfig, autocast: torch.autocast) -> dict[str, float]:
    """`val/...` on the validation split and `select/miou` on the held-out share of train, if there is one."""
    protocols = config.eval.protocols
    metrics = evaluate(
        student, data.val, data.classes, config.data, protocols, conditions=data.conditions, autocast=autocast
    )
    if len(data.select):
        chosen = evaluate(
            student,
            data.train,
            data.classes,
            config.data,
            protocols[:1],
            indices=data.select,
            prefix="select",
            autocast=autocast,
        )
        metrics["select/miou"] = chosen["select/miou"]
    return metrics


@torch.no_grad()
def evaluate(
    model: SegModel,
    split: PackedSplit,
    names: tuple[str, ...],
    data: DataConfig,
    protocols: Iterable[str],
    *,
    indices: np.ndarray | None = None,
    conditions: Mapping[str, np.ndarray] | None = None,
    prefix: str = "val",
    batch: int = 8,
    autocast: torch.autocast | None = None,
) -> dict[str, float]:
    """Metrics of `model` on the samples `indices` of a split. The first protocol is `<prefix>/miou`.

    `full` upsamples the logits to the label's own size; `paper` compares the logits with labels at a quarter of the
    input size. `conditions` (name -> sample indices, disjoint) also get `<prefix>/<condition>/miou`, by the first
    protocol. An mIoU is absent where no pixel is labelled. Each worker evaluates its own part of the samples; the
    confusion matrices are summed.
    """
    protocols = tuple(protocols)
    device = next(model.parameters()).device
    mine = (np.arange(len(split)) if indices is None else indices)[parallel.rank() :: parallel.world()]
    groups = dict(conditions or {})
    group = np.full(len(split), len(groups))  # samples without a condition are counted in the last matrix
    for position, members in enumerate(groups.values()):
        group[members] = position
    shape = (len(groups) + 1, len(names), model.channels.classes)
    counts = {name: torch.zeros(shape, dtype=torch.int64) for name in protocols}
    training = model.training
    model.eval()
    for chunk in np.array_split(mine, max(1, -(-len(mine) // batch))) if len(mine) else []:
        logits = forward(model, split.images(chunk), data, device, autocast)
        for protocol in protocols:
            for index, (label, prediction) in zip(
                chunk, labels_and_predictions(logits, split, chunk, protocol), strict=True
            ):
                counts[protocol][group[index]] += metrics.confusion(prediction, label, *shape[1:]).cpu()
    model.train(training)
    result: dict[str, float] = {}
    for protocol in protocols:
        matrices = parallel.all_reduce(counts[protocol].to(device)).cpu()
        where = prefix if protocol == protocols[0] else f"{prefix}/{protocol}"
        result |= metrics.summary(matrices.sum(0), names, where, absent_is_zero=protocol == "paper")
        if protocol == protocols[0]:
            for condition, matrix in zip(groups, matrices, strict=False):
                part = metrics.summary(matrix, names, f"{prefix}/{condition}", absent_is_zero=protocol == "paper")
                result |= {name: value for name, value in part.items() if "/iou/" not in name}
    return result


def forward(
    model: SegModel, images: np.ndarray, data: DataConfig, device: torch.device, autocast: torch.autocast | None = None
) -> Tensor:
    """Logits (N, P, H/4, W/4) float32 of uint8 images (N, H, W, 3)."""
    image = normalise(torch.from_numpy(images).permute(0, 3, 1, 2).to(device), data.normalize)
    with autocast or torch.autocast(device.type, enabled=False):
        logits = model(image, None, LOGITS).logits
    assert logits is not None
    return logits.float()


def labels_and_predictions(
    logits: Tensor, split: PackedSplit, chunk: np.ndarray, protocol: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """(label, prediction) pairs, each (h, w), of the samples `chunk` whose logits are (N, P, H/4, W/4)."""
    for position, index in enumerate(chunk):
        one = logits[position : position + 1]
        if protocol == "paper":
            label = quarter_label(split.native_label(int(index)), split.size)
        else:
            label = split.native_label(int(index))
            one = F.interpolate(one, size=label.shape, mode="bilinear", align_corners=False)
        yield torch.from_numpy(np.array(label)).to(logits.device), one.argmax(1)[0]
