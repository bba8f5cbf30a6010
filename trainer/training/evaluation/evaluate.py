"""Validation: one confusion matrix per protocol over a whole split, summed over workers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainer import parallel
from trainer.config import DataConfig, EvalConfig, TrainConfig
from trainer.data import PackedSplit
from trainer.data.ahead import ahead
from trainer.data.transforms import quarter_label
from trainer.models.base import SegModel
from trainer.training.build import Data
from trainer.training.evaluation import metrics
from trainer.training.evaluation.inference import WHOLE, Views, logits_of
from trainer.training.evaluation.prediction import class_of


def validate(student: SegModel, data: Data, config: TrainConfig, autocast: torch.autocast) -> dict[str, float]:
    """`val/...` on the validation split and `select/miou` on the held-out share of train, if there is one."""
    protocols = config.eval.protocols
    metrics = evaluate(
        student,
        data.val,
        data.classes,
        config.data,
        protocols,
        conditions=data.conditions,
        autocast=autocast,
        how=config.eval,
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
            how=config.eval,
        )
        metrics["select/miou"] = chosen["select/miou"]
    return metrics


def evaluate_test(student: SegModel, data: Data, config: TrainConfig, autocast: torch.autocast) -> dict[str, float]:
    """`test/...` of the last epoch's student, where `eval.splits` names test; else nothing."""
    if data.test is None:
        return {}
    conditions, protocols = data.dataset.conditions(data.test.stems), config.eval.protocols
    return evaluate(
        student,
        data.test,
        data.classes,
        config.data,
        protocols,
        conditions=conditions,
        prefix="test",
        autocast=autocast,
        how=config.eval,
    )


class Labels(NamedTuple):
    """The labels of one size in a batch of images."""

    positions: list[int]  # of the n images in the batch
    labels: np.ndarray  # (n, h, w) uint8
    groups: np.ndarray  # (n,) which confusion matrix counts each


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
    how: EvalConfig = WHOLE,
) -> dict[str, float]:
    """Metrics of `model` on the samples `indices` of a split. The first protocol is `<prefix>/miou`.

    `full` upsamples the logits to the label's own size; `paper` compares the logits with labels at a quarter of the
    input size. `conditions` (name -> sample indices, disjoint) also get `<prefix>/<condition>/miou`, by the first
    protocol. An mIoU is absent where no pixel is labelled. Each worker evaluates its own part of the samples; the
    confusion matrices stay on the device and are summed once. A thread reads one batch ahead. `how` says how the
    predictions are made; its protocols are not read.
    """
    protocols = tuple(protocols)
    device = next(model.parameters()).device
    mine = (np.arange(len(split)) if indices is None else indices)[parallel.rank() :: parallel.world()]
    groups = dict(conditions or {})
    group = np.full(len(split), len(groups))  # samples without a condition are counted in the last matrix
    for position, members in enumerate(groups.values()):
        group[members] = position
    shape = (len(groups) + 1, len(names), model.channels.classes)
    counts = torch.zeros((len(protocols), *shape), dtype=torch.int64, device=device)
    training = model.training
    model.eval()

    def read(chunk: np.ndarray) -> tuple[np.ndarray, list[list[Labels]]]:
        return split.images(chunk), [labels_of(split, chunk, protocol, group[chunk]) for protocol in protocols]

    chunks = np.array_split(mine, max(1, -(-len(mine) // batch))) if len(mine) else []
    for images, labels in ahead(read, chunks, name="evaluate"):
        views = logits_of(model, images, data, device, autocast, how)
        for count, sizes in zip(counts, labels, strict=True):
            for same in sizes:
                count += _confusion(views, same, shape)
    model.train(training)
    matrices = parallel.all_reduce(counts).cpu()
    result: dict[str, float] = {}
    for protocol, found in zip(protocols, matrices, strict=True):
        where = prefix if protocol == protocols[0] else f"{prefix}/{protocol}"
        result |= metrics.summary(found.sum(0), names, where, absent_is_zero=protocol == "paper")
        if protocol == protocols[0]:
            for condition, matrix in zip(groups, found, strict=False):
                part = metrics.summary(matrix, names, f"{prefix}/{condition}", absent_is_zero=protocol == "paper")
                result |= {name: value for name, value in part.items() if "/iou/" not in name}
    return result


def _confusion(views: Views, same: Labels, shape: tuple[int, int, int]) -> Tensor:
    """Counts `shape` (G, K, P) of the images whose labels are `same`, from the views (N, P, h, w) of the batch."""
    whole = len(same.positions) == len(views[0])
    prediction = class_of([logits if whole else logits[same.positions] for logits in views], same.labels.shape[1:])
    label, group = (torch.from_numpy(array).to(prediction.device) for array in (same.labels, same.groups))
    return metrics.confusion_by_group(prediction, label, group, shape)


def labels_of(split: PackedSplit, chunk: np.ndarray, protocol: str, groups: np.ndarray) -> list[Labels]:
    """The labels of the samples `chunk` as a protocol compares them, those of one size together."""
    sizes: dict[tuple[int, ...], list[tuple[int, np.ndarray]]] = {}
    for position, index in enumerate(chunk.tolist()):
        label = split.native_label(index)
        label = quarter_label(label, split.size) if protocol == "paper" else label
        sizes.setdefault(label.shape, []).append((position, label))
    found = []
    for same in sizes.values():
        positions = [position for position, _ in same]
        found.append(Labels(positions, np.stack([label for _, label in same]), groups[positions]))
    return found
