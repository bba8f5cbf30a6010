"""on_device(): the copy of the next batch to the GPU, under the step that computes on the one before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch

from trainer.data.stream import HostBatch

Wait = Callable[[], HostBatch]
"""Waits for a copy, on the device's queue and not on the host, and returns the batch."""


def on_device(batches: Iterable[HostBatch], device: torch.device) -> Iterator[HostBatch]:
    """The same batches in the memory of `device`, one ahead; those of a CPU as they are."""
    if device.type != "cuda":
        yield from batches
    else:
        yield from one_ahead(batches, _copier(device))


def one_ahead(batches: Iterable[HostBatch], begin: Callable[[HostBatch], Wait]) -> Iterator[HostBatch]:
    """Each batch once its copy is there; that of the next has been begun before the caller gets it."""
    coming: Wait | None = None
    for batch in batches:
        following = begin(batch)
        if coming is not None:
            yield coming()
        coming = following
    if coming is not None:
        yield coming()


def _copier(device: torch.device) -> Callable[[HostBatch], Wait]:
    """Begins copies on a CUDA stream of its own. The tensors belong to that stream: `record_stream` keeps their memory
    until the stream that computes has come past them."""
    stream = torch.cuda.Stream(device)

    def begin(batch: HostBatch) -> Wait:
        with torch.cuda.stream(stream):
            copied = HostBatch(*(part.to(device, non_blocking=True) for part in batch))
            done = stream.record_event()

        def wait() -> HostBatch:
            computing = torch.cuda.current_stream(device)
            computing.wait_event(done)
            for part in copied:
                part.record_stream(computing)
            return copied

        return wait

    return begin
