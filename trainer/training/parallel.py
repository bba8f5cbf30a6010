"""The world of one run: how many processes share it, and sums over them. Alone, a world of one.

Annotations are not deferred here: DDP compares those of a communication hook with the classes themselves.
"""

import torch
import torch.distributed as dist
from torch import Tensor


def joined() -> bool:
    """Whether this process is part of a process group."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """This process's number; 0 when alone."""
    return dist.get_rank() if joined() else 0


def world() -> int:
    """The number of processes of this run; 1 when alone."""
    return dist.get_world_size() if joined() else 1


def all_reduce(tensor: Tensor) -> Tensor:
    """The sum of `tensor` over all processes, in place."""
    if joined():
        dist.all_reduce(tensor)
    return tensor


def barrier() -> None:
    """Wait until every process is here."""
    if joined():
        all_reduce(torch.zeros(1, device="cuda" if dist.get_backend() == "nccl" else "cpu"))


def sum_gradients(_: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """DDP's hook: losses are already divided by global counts, so gradients are summed, not averaged."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    return work.get_future().then(lambda done: done.value()[0])
