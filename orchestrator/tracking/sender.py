"""Sender: a tracking queue with its own thread, so that a slow or missing server does not delay the driver."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable

from trainer.config import message_of

LOG = logging.getLogger(__name__)

FIRST_S = 1.0
LONGEST_S = 300.0
"""The pause after the first call without an answer, and the longest pause."""
TRIES = 2
"""Attempts at an action while the server answers. The second one creates again a run that was deleted on the page."""


def pause_s(misses: int) -> float:
    """Pause after so many calls in a row without an answer: exponential backoff, with jitter from half to all of
    it so that drivers do not return to a server at the same moment
    ("equal jitter", M. Brooker, Exponential Backoff And Jitter, AWS Architecture Blog, 2015)."""
    longest = min(LONGEST_S, FIRST_S * 2.0 ** min(misses - 1, 30))
    return random.uniform(longest / 2, longest)


class Sender:
    """A queue of named actions and one daemon thread that runs them in order. No method raises.

    An action replaces a waiting one of the same name: if ten epochs of a run wait for a slow server, one action
    sends all ten. Where an action fails, `why_unreachable` tells why the
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
        """Queue an action; returns at once."""
        with self._change:
            self._waiting[name] = action
            self._change.notify_all()

    def close(self, timeout_s: float | None = None) -> set[str]:
        """Run the waiting actions, at most so long, then stop. A server that does not answer is not waited for.

        Returns the names of actions that were not done.
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
        """Queue a failed action again, unless a newer one of its name waits. False where the server does not answer."""
        gone = self._why_unreachable()
        with self._change:
            self._doing = set()
            if gone:
                self._put_back(name, action)
                self._misses += 1
                if not self._warned:
                    self._warned = True
                    LOG.warning("no tracking at %s; runs continue, and tracking is retried: %s", self.where, gone)
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
        """Put an action back at the front: the order of actions must not change."""
        self._waiting = {name: action} | self._waiting


def in_one_line(error: Exception) -> str:
    """An error for a log: its class and message, cut to 300 characters."""
    return f"{type(error).__name__}: {message_of(error)[:300]}"
