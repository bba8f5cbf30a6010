"""FreshThread: after a failed allocation, work goes on in a new thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


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
