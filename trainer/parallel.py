"""The processes of one run: rank, world size and sums over them; without a process group, rank 0 of 1.

No `from __future__ import annotations` here: DDP compares a communication hook's annotations with classes.
"""

import contextlib
import threading
import time
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

ANSWER_S = 5.0
"""So many seconds the other processes have to say that they have lost one too."""


class SilentRankError(RuntimeError):
    """Some of the processes of a run do not answer. Says which."""


def joined() -> bool:
    """Whether this process is part of a process group."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """This process's rank; 0 without a process group."""
    return dist.get_rank() if joined() else 0


def world() -> int:
    """The number of processes of this run; 1 without a process group."""
    return dist.get_world_size() if joined() else 1


def all_reduce(tensor: Tensor) -> Tensor:
    """The sum of `tensor` over all processes, in place."""
    if joined():
        dist.all_reduce(tensor)
    return tensor


def gather(tensor: Tensor) -> Tensor:
    """The tensors (N, ...) of all processes, stacked in the order of their ranks: (world, N, ...). No gradient."""
    if not joined():
        return tensor.detach()[None]
    found = tensor.new_empty((world(), *tensor.shape))
    dist.all_gather(list(found), tensor.detach().contiguous())
    return found


class _GatherSamples(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return gather(x).flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return all_reduce(gradient.contiguous().clone()).chunk(world())[rank()]


def gather_samples(x: Tensor) -> Tensor:
    """The samples (N, ...) of all processes in the order of their ranks: (world * N, ...).

    The gradient of a sample is the sum of its gradients in all processes, whose losses are parts of one sum.
    """
    return _GatherSamples.apply(x) if joined() else x


def barrier() -> None:
    """Wait until every process has called this."""
    all_said(None)  # an operation on a GPU would only be queued


def first_said(text: str) -> str:
    """The first text, in the order of ranks, that is not empty; "" where all are."""
    return next(filter(None, all_said(text)), "")


def all_said(own: Any) -> list[Any]:
    """What each process says, in the order of ranks."""
    found = [own] * world()
    if joined():
        dist.all_gather_object(found, own)
    return found


def from_rank(own: Any, rank: int) -> Any:
    """What the process of this rank gives, for all of them."""
    given = [own]
    dist.broadcast_object_list(given, rank)
    return given[0]


def sum_gradients(_: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """DDP communication hook that sums gradients, not averages: losses are divided by counts of the global batch."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    return work.get_future().then(lambda done: done.value()[0])


def silent_ranks() -> list[int]:
    """After an operation of the group has failed: the ranks that do not say so themselves within `ANSWER_S` seconds.

    All processes whose operation has failed must call it. They meet in the store by which they have found each other,
    as no operation of the group succeeds any more; rank 0 holds that store. Empty where all answer.
    """
    store, missing = dist.distributed_c10d._get_default_store(), set(range(world()))
    begun, answers = time.monotonic(), threading.Event()

    def ask() -> None:
        with contextlib.suppress(RuntimeError):  # rank 0 has died
            store.set(f"lost/{rank()}", "")
            while missing and time.monotonic() - begun < ANSWER_S:
                missing.difference_update([other for other in missing if store.check([f"lost/{other}"])])
                answers.set()
                time.sleep(0.1)

    # a thread: where rank 0 is frozen, its store never answers
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(ANSWER_S + 1.0)
    return sorted(missing) if answers.is_set() else [0]
