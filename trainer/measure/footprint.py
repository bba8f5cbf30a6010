"""Measure the student's latency and peak memory for one image on this hardware."""

from __future__ import annotations

import copy
import statistics
import time
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trainer.measure.device import synchronize
from trainer.models.base import LOGITS, SegModel

_MIB = 2**20


@torch.no_grad()
def measure(
    model: SegModel, size: tuple[int, int], device: torch.device, *, repeats: int = 10, limit_s: float = 2.0
) -> dict[str, float]:
    """Costs of the logits of one float32 image of `size` (H, W) on `device`; a copy of the model is measured.

    `latency_ms` is the median of up to `repeats` forward passes, fewer when `limit_s` is over, but at least one.
    `peak_mib` is the size of weights, buffers and image, plus the peak of a forward pass: on CUDA by the allocator,
    with the workspaces of operators; elsewhere the bytes of tensors alive at once, without workspaces.
    """
    model = copy.deepcopy(model).to(device).eval()
    image = torch.rand(1, model.channels.inputs, *size, generator=torch.Generator().manual_seed(0)).to(device)

    def forward() -> None:
        model(image, needs=LOGITS)

    held = [*model.parameters(), *model.buffers(), image]
    forward()  # warm-up: kernels are chosen and caches filled
    extra = (_peak_on_cuda if device.type == "cuda" else _peak_of_tensors)(forward, held)
    times_s: list[float] = []
    while not times_s or (len(times_s) < repeats and sum(times_s) < limit_s):
        synchronize(device)
        start = time.perf_counter()
        forward()
        synchronize(device)
        times_s.append(time.perf_counter() - start)
    return {
        "latency_ms": 1e3 * statistics.median(times_s),
        "peak_mib": (sum(tensor.nbytes for tensor in held) + extra) / _MIB,
    }


def _peak_on_cuda(forward: Callable[[], None], held: list[Tensor]) -> int:
    """Peak bytes that CUDA's allocator allocates in `forward`, without what was allocated before."""
    device = held[-1].device
    synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    forward()
    synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _peak_of_tensors(forward: Callable[[], None], held: list[Tensor]) -> int:
    """Peak bytes of the tensors that `forward` makes, without those in `held`."""
    with _LiveTensors(held) as live:
        forward()
    return live.peak


class _LiveTensors(TorchDispatchMode):
    """Tracks the bytes of live storages: from when an operator returns one until it is freed."""

    def __init__(self, held: list[Tensor]) -> None:
        super().__init__()
        self.known = {tensor.untyped_storage()._cdata for tensor in held}
        self.bytes = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        self.peak = max(self.peak, self.bytes)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        address, size = storage._cdata, storage.nbytes()
        if address in self.known:  # a view, or a tensor changed in place
            return
        self.known.add(address)
        self.bytes += size
        weakref.finalize(storage, self._freed, address, size)

    def _freed(self, address: int, size: int) -> None:
        self.known.discard(address)
        self.bytes -= size
