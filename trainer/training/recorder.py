"""Recorder: writes checkpoints on a thread while the next epoch trains, and reports no epoch before it is on disk."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType


class Recorder:
    """One epoch at a time: `begin` starts its write, `poll` or `finish` records it. Use it as a context manager."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._write: Future[None] | None = None
        self._record: Callable[[], None] | None = None

    def begin(self, write: Callable[[], None] | None, record: Callable[[], None]) -> None:
        """Start `write` on the thread; None writes nothing. `record` is called afterwards, by the caller's thread.

        The epoch before is finished first. `write` must not read what training changes.
        """
        self.finish()
        self._write = self._pool.submit(write) if write is not None else None
        self._record = record

    def poll(self) -> None:
        """Record the epoch if its write has ended. Raises the error of a write that failed."""
        if self._record is not None and (self._write is None or self._write.done()):
            self.finish()

    def finish(self) -> None:
        """Wait for the write and record the epoch. Raises the error of a failed write, and then records nothing."""
        write, record, self._write, self._record = self._write, self._record, None, None
        if write is not None:
            write.result()
        if record is not None:
            record()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Record what was begun. After an exception its error matters more than one of the write, and what asks the
        process to end (no `Exception`) only waits for the write."""
        try:
            if error is None:
                self.finish()
            elif isinstance(error, Exception):
                with contextlib.suppress(Exception):
                    self.finish()
        finally:
            self._pool.shutdown()
