"""Stream: the training samples of every step, as a function of (seed, epoch, step) only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainer import rng
from trainer.config import Normalize, Scale, TrainConfig, UserError
from trainer.data.ahead import ahead
from trainer.data.augmenter import Augmenter
from trainer.data.batch import Batch
from trainer.data.packs.packed import PackedSplit

# RGB mean and standard deviation of ImageNet, on which public backbones were pre-trained.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class HostBatch(NamedTuple):
    """N samples as uint8, a quarter of the bytes that float32 would copy to the GPU."""

    image: Tensor  # (N, C, H, W) uint8
    label: Tensor  # (N, H, W), or (N, H/4, W/4) with quarter labels, uint8
    keys: Tensor  # (N,) int64


class Stream:
    """One worker's training samples: its contiguous share of every global batch.

    Order and augmentation depend on the seed, the epoch and the sample; never on rank, world or micro-batch.
    """

    def __init__(
        self,
        packed: PackedSplit,
        config: TrainConfig,
        indices: np.ndarray | None,
        rank: int,
        world: int,
        *,
        threads: int = 1,
        pinned: bool = False,
    ) -> None:
        """`indices` (n,) are the samples of `packed` to train on, None for all. `threads` prepare batches ahead, one
        each; `pinned` puts them into page-locked memory, from which a GPU copies while it computes.

        Raises UserError when there are fewer of them than `global_batch`, when `world` does not divide it, or when the
        steps of `data.augment` cannot be applied.
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
        self.augmenter = Augmenter(config.data, config.seed, neutral(config.data.normalize, packed.channels))
        self.share = self.global_batch // world
        self.first = rank * self.share
        self.steps_per_epoch = len(self.indices) // self.global_batch
        self.threads = threads
        self.pinned = pinned

    def epoch(self, epoch: int) -> Iterator[HostBatch]:
        """This worker's batch of every step of a pass over the data, prepared ahead."""
        return self.steps(range(epoch * self.steps_per_epoch, (epoch + 1) * self.steps_per_epoch))

    def steps(self, steps: range) -> Iterator[HostBatch]:
        """This worker's batch of each of a run's 0-based steps, prepared ahead.

        The threads end with the iterator; their errors are raised here.
        """
        passes = range(steps.start // self.steps_per_epoch, (steps.stop - 1) // self.steps_per_epoch + 1)
        orders = {epoch: rng.permutation(self.config.seed, epoch, len(self.indices)) for epoch in passes}

        def assemble(step: int) -> HostBatch:
            epoch, k = divmod(step, self.steps_per_epoch)
            return self._assemble(epoch, orders[epoch], k)

        return ahead(assemble, steps, threads=self.threads, most=self.threads, name="stream")

    def _assemble(self, epoch: int, order: np.ndarray, k: int) -> HostBatch:
        begin = k * self.global_batch + self.first
        samples = self.indices[order[begin : begin + self.share]]
        height, width = self.augmenter.size
        images = self._empty(len(samples), self.packed.channels, height, width)
        labels = self._empty(len(samples), *((height // 4, width // 4) if self.augmenter.quarter else (height, width)))
        into = images.numpy(), labels.numpy()
        for position, sample in enumerate(samples.tolist()):
            image, label = self.augmenter(self.packed, sample, epoch)
            into[0][position] = image.transpose(2, 0, 1)
            into[1][position] = label
        return HostBatch(images, labels, torch.from_numpy(rng.sample_keys(self.config.seed, epoch, samples)))

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.uint8, pin_memory=self.pinned)


def threads_of_stream(device: torch.device, threads: int) -> int:
    """How many threads prepare batches beside torch's `threads`. On a CPU one: a step takes far longer than its batch,
    and more would take the step's cores. Beside a GPU torch's threads are idle."""
    return 1 if device.type == "cpu" else max(threads, min(4, os.cpu_count() or 1))


def to_batch(host: HostBatch, device: torch.device | str, normalize: Normalize) -> Batch:
    """Copy the uint8 samples to the device, unless they are there, and convert and normalise them there."""
    image, label, keys = (part.to(device, non_blocking=True) for part in host)
    return Batch(normalise(image, normalize), label.long(), keys)


def normalise(image: Tensor, normalize: Normalize) -> Tensor:
    """(N, C, H, W) uint8 -> float32 in [0, 1], then minus the mean and over the deviation that `normalize` names."""
    unit = image.float().div_(255)
    if normalize == "unit":
        return unit
    mean, std = statistics(unit, normalize)
    return unit.sub_(mean).div_(std)


def statistics(image: Tensor, normalize: Normalize) -> tuple[Tensor, Tensor]:
    """Mean and deviation (C, 1, 1) of a normalisation other than `unit`, in the dtype and on the device of `image`."""
    values = (normalize.mean, normalize.std) if isinstance(normalize, Scale) else (IMAGENET_MEAN, IMAGENET_STD)
    mean, std = (image.new_tensor(numbers).view(-1, 1, 1) for numbers in values)
    return mean, std


def neutral(normalize: Normalize, channels: int) -> np.ndarray:
    """(C,) uint8: the colour that normalisation takes nearest to 0."""
    mean = IMAGENET_MEAN if normalize == "imagenet" else (0.0,) * channels
    mean = normalize.mean if isinstance(normalize, Scale) else mean
    return np.rint(np.array(mean) * 255).astype(np.uint8)


def holdout(n: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """(train indices, held-out indices), sorted: a random split of n samples that depends on n and share only.

    A share above 0 holds out at least one sample.
    """
    held = max(round(n * share), 1) if share > 0 else 0
    order = rng.generator("holdout", n).permutation(n)
    return np.sort(order[held:]), np.sort(order[:held])
