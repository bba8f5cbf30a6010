"""Sender: does tracking on a thread of its own, so that a server that is slow or gone costs the driver nothing."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable

LOG = logging.getLogger(__name__)

FIRST_S = 1.0
LONGEST_S = 300.0
"""The pause after the first call without an answer, and the longest."""
TRIES = 2
"""Times that an action is tried while the server answers: a run deleted on the page is made again the second time."""


def pause_s(misses: int) -> float:
    """How long to leave a server alone that has not answered so many times running: doubled each time, up to a bound,
    and cut by chance to as little as half, so that drivers which lost one server do not return to it together
    ("equal jitter", M. Brooker, Exponential Backoff And Jitter, AWS Architecture Blog, 2015)."""
    longest = min(LONGEST_S, FIRST_S * 2.0 ** min(misses - 1, 30))
    return random.uniform(longest / 2, longest)


class Sender:
    """A queue of named actions and one daemon thread that does them in order. Nothing here raises.

    An action sent under a name that still waits takes its place: of ten epochs of one run, waiting for a slow
    server, only the last is mirrored, and it carries all ten. Where an action fails, `why_unreachable` tells why the
    server cannot be reached: then everything waits, and is tried again when the pause ends. Where it answers (""), the
    trouble is that action's own, and the others go on.
    """

    def __init__(self, why_unreachable: Callable[[], str], where: str) -> None:
        self._why_unreachable = why_unreachable
        self.where = where
        self._waiting: dict[str, Callable[[], object]] = {}
        self._failed: dict[str, int] = {}
        self._lost: set[str] = set()
        self._doing: set[str] = set()
        self._misses = 0
        self._warned = False
        self._change = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self._thread.start()

    def send(self, name: str, action: Callable[[], object]) -> None:
        """Have it done soon; returns at once."""
        with self._change:
            self._waiting[name] = action
            self._change.notify_all()

    def close(self, timeout_s: float | None = None) -> set[str]:
        """Do what waits, at most so long, and no more afterwards; a server that does not answer now is not waited for.

        Returns the names of what was not done.
        """
        with self._change:
            self._closing = True
            self._change.notify_all()
        self._thread.join(timeout_s)
        with self._change:
            return self._lost | self._doing | self._waiting.keys()

    def _work(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: bool(self._waiting) or self._closing)
                if not self._waiting:
                    return
                name, action = next(iter(self._waiting.items()))
                del self._waiting[name]
                self._doing = {name}
                hurried = self._closing
            try:
                action()
            except Exception as error:
                if not self._put_back_or_drop(name, action, error) and hurried:
                    return
            else:
                with self._change:
                    self._misses = 0
                    self._failed.pop(name, None)
                    self._lost.discard(name)
                    self._doing = set()

    def _put_back_or_drop(self, name: str, action: Callable[[], object], error: Exception) -> bool:
        """Put a failed action back, unless a newer one of its name has come. False: the server is not there."""
        gone = self._why_unreachable()
        with self._change:
            self._doing = set()
            if gone:
                self._put_back(name, action)
                self._misses += 1
                if not self._warned:
                    self._warned = True
                    LOG.warning("no tracking at %s; runs go on, and it is tried again: %s", self.where, gone)
                self._change.wait_for(lambda: self._closing, pause_s(self._misses))
                return False
            self._misses = 0
            self._failed[name] = self._failed.get(name, 0) + 1
            if self._failed[name] < TRIES:
                self._put_back(name, action)
            else:
                if name not in self._lost:
                    LOG.warning("tracking at %s: %s: %s", self.where, name, in_one_line(error))
                self._lost.add(name)
        return True

    def _put_back(self, name: str, action: Callable[[], object]) -> None:
        """Before what came after it: what ends a study must not overtake what opens it."""
        self._waiting = {name: action} | self._waiting


def in_one_line(error: Exception) -> str:
    """An error as a log tells it: its kind and what it says, cut where it goes on and on."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
