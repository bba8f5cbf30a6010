"""The memory of a process: it is given back after a run, and training goes on after a failed allocation."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")


def release_memory() -> None:
    """Return the memory of a finished run to the GPU and to the system.

    Runs of one process train in threads of their own, and glibc keeps the memory that each thread freed: 100 MB a run,
    measured with SegFormer-B0. torch caches GPU memory too, which other runs on the same GPU may need.
    """
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # not glibc
            ctypes.CDLL("libc.so.6").malloc_trim(0)


class FreshThread:
    """Calls functions: in the caller's thread, and once `renew` was called in a thread of its own.

    After a failed allocation oneDNN refuses smaller ones too, in the same thread.
    """

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None

    def __call__(self, action: Callable[..., T], *given: object) -> T:
        """The function's value; its error is raised."""
        return action(*given) if self._thread is None else self._thread.submit(action, *given).result()

    def renew(self) -> None:
        """Leave the thread in which an allocation failed."""
        self.close()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="training")

    def close(self) -> None:
        """End the thread, if there is one."""
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None
