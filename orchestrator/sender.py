"""Sender: does tracking on a thread of its own, so that a slow server costs the driver nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Sender:
    """A queue of named actions and one daemon thread that does them in order.

    An action sent under a name that still waits takes its place: of ten epochs of one run, waiting for a slow
    server, only the last is mirrored, and it carries all ten. The actions must not raise, as a Tracker's do not.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, Callable[[], object]] = {}
        self._change = threading.Condition()
        self._busy = False
        threading.Thread(target=self._work, name="tracking", daemon=True).start()

    def send(self, name: str, action: Callable[[], object]) -> None:
        """Have it done soon; returns at once."""
        with self._change:
            self._waiting[name] = action
            self._change.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Wait until all is done, at most so long. False: something is left, which `sync` will send."""
        with self._change:
            return self._change.wait_for(lambda: not self._waiting and not self._busy, timeout_s)

    def _work(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: bool(self._waiting))
                action = self._waiting.pop(next(iter(self._waiting)))
                self._busy = True
            action()
            with self._change:
                self._busy = False
                self._change.notify_all()
