"""Sender: a tracking queue with its own thread, so that a slow or missing server does not delay the driver."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

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


class _Waiting(NamedTuple):
    action: Callable[[], object]
    due: float
    """Not before this time of `time.monotonic`, unless the sender closes."""


class Sender:
    """A queue of named actions and one daemon thread that runs those that are due in order. No method raises.

    An action replaces a waiting one of the same name: if ten epochs of a run wait for a slow server, or until they are
    due, one action sends all ten. Where an action fails, `why_unreachable` tells why the
    server cannot be reached: then everything waits, and is tried again when the pause ends. Where it answers (""), the
    trouble is that action's own, and the others go on.
    """

    def __init__(self, why_unreachable: Callable[[], str], where: str) -> None:
        self._why_unreachable = why_unreachable
        self.where = where
        self._waiting: dict[str, _Waiting] = {}
        self._failed: dict[str, int] = {}
        self._lost: set[str] = set()
        self._doing: set[str] = set()
        self._misses = 0
        self._warned = False
        self._change = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self._thread.start()

    def send(self, name: str, action: Callable[[], object], within_s: float = 0.0) -> None:
        """Queue an action that may wait so many seconds for others of its name; returns at once."""
        with self._change:
            due = time.monotonic() + within_s
            if name in self._waiting:
                due = min(due, self._waiting[name].due)
            self._waiting[name] = _Waiting(action, due)
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
                while (name := self._next_due()) is None and not self._closing:
                    self._change.wait(self._next_due_s())
                if name is None:
                    return
                action = self._waiting.pop(name).action
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

    def _next_due(self) -> str | None:
        """The name of the first action that is due."""
        now = time.monotonic()
        return next((name for name, it in self._waiting.items() if self._closing or it.due <= now), None)

    def _next_due_s(self) -> float | None:
        """Seconds until an action is due; None where none waits."""
        soonest = min((waiting.due for waiting in self._waiting.values()), default=None)
        return None if soonest is None else max(soonest - time.monotonic(), 0.0)

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
                    LOG.warning("no tracking at %s, which no run waits for: %s", self.where, gone)
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
        self._waiting = {name: _Waiting(action, 0.0)} | self._waiting


def in_one_line(error: Exception) -> str:
    """An error for a log: its class and message, cut to 300 characters."""
    return f"{type(error).__name__}: {message_of(error)[:300]}"
