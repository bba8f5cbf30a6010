"""Stream: the training samples of every step, as a function of (seed, epoch, step) only."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainer import rng
from trainer.config import TrainConfig, UserError
from trainer.data.batch import Batch
from trainer.data.packed import PackedSplit
from trainer.data.transforms import augment

# RGB mean and standard deviation of ImageNet, on which public backbones were pre-trained.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class HostBatch(NamedTuple):
    """N samples in host memory as uint8, a quarter of the bytes that float32 would copy to the GPU."""

    image: Tensor  # (N, 3, H, W) uint8
    label: Tensor  # (N, H, W), or (N, H/4, W/4) with quarter labels, uint8
    keys: Tensor  # (N,) int64


class Stream:
    """One worker's training samples: its contiguous share of every global batch.

    Order and augmentation depend on the seed, the epoch and the sample; never on rank, world or micro-batch.
    """

    def __init__(self, packed: PackedSplit, config: TrainConfig, indices: np.ndarray | None, rank: int, world: int):
        """`indices` (n,) are the samples of `packed` to train on, None for all.

        Raises UserError when there are fewer of them than `global_batch`, or when `world` does not divide it.
        """
        self.packed, self.config = packed, config
        self.indices = np.arange(len(packed)) if indices is None else indices
        self.global_batch = config.optim.global_batch
        if self.global_batch > len(self.indices):
            raise UserError(
                f"global_batch {self.global_batch} exceeds the {len(self.indices)} training images; "
                "lower optim.global_batch or add images"
            )
        if self.global_batch % world:
            raise UserError(
                f"global_batch must be a multiple of the number of workers ({world}) but got {self.global_batch}; "
                "use a number of workers that divides it"
            )
        self.share = self.global_batch // world
        self.first = rank * self.share
        self.steps_per_epoch = len(self.indices) // self.global_batch

    def epoch(self, epoch: int) -> Iterator[HostBatch]:
        """This worker's batch of every step of an epoch; a thread prepares one batch ahead.

        The thread ends with the iterator; its errors are raised here.
        """
        order = rng.permutation(self.config.seed, epoch, len(self.indices))
        with ThreadPoolExecutor(1, thread_name_prefix="stream") as thread:
            ahead = None
            for k in range(self.steps_per_epoch):
                coming = thread.submit(self._assemble, epoch, order, k)
                if ahead:
                    yield ahead.result()
                ahead = coming
            if ahead:
                yield ahead.result()

    def _assemble(self, epoch: int, order: np.ndarray, k: int) -> HostBatch:
        begin = k * self.global_batch + self.first
        samples = self.indices[order[begin : begin + self.share]]
        data, seed = self.config.data, self.config.seed
        quarter = data.train_labels == "quarter"
        images, labels = [], []
        for sample in samples.tolist():
            image, label = self.packed.sample(sample)
            label = self.packed.native_label(sample) if quarter else label
            image, label = augment(image, label, rng.generator(seed, "augment", epoch, sample), data.augment, quarter)
            images.append(image.transpose(2, 0, 1))
            labels.append(label)
        return HostBatch(
            torch.from_numpy(np.stack(images)),
            torch.from_numpy(np.stack(labels)),
            torch.from_numpy(rng.sample_keys(seed, epoch, samples)),
        )


def to_batch(host: HostBatch, device: torch.device | str, normalize: Literal["unit", "imagenet"]) -> Batch:
    """Copy the uint8 samples to the device, and convert and normalise them there."""
    image, label, keys = (part.to(device, non_blocking=True) for part in host)
    return Batch(normalise(image, normalize), label.long(), keys)


def normalise(image: Tensor, normalize: Literal["unit", "imagenet"]) -> Tensor:
    """(N, 3, H, W) uint8 -> float32 in [0, 1], then for `imagenet` minus the mean and over the standard deviation."""
    unit = image.float().div_(255)
    if normalize == "unit":
        return unit
    mean, std = (unit.new_tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return unit.sub_(mean).div_(std)


def holdout(n: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """(train indices, held-out indices), sorted: a random split of n samples that depends on n and share only.

    A share above 0 holds out at least one sample.
    """
    held = max(round(n * share), 1) if share > 0 else 0
    order = rng.generator("holdout", n).permutation(n)
    return np.sort(order[held:]), np.sort(order[:held])
