"""HeadWatch: notices in the driver that the head of Ray is gone, while the study can still be closed.

Ray's own code waits for a minute, and then ends the process in the middle of whatever it does.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable

EXIT_CODE = 4
"""Of a driver that has lost Ray."""
ASK_S = 1.0
"""So often the head is asked, in seconds."""
ANSWER_S = 3.0
"""Timeout for its answer, in seconds."""
REFUSED_S = 8.0
"""For so many seconds its machine may refuse the connection: a process that has ended rarely comes back sooner."""
SILENT_S = 40.0
"""For so many seconds nothing may answer at all: a network that heals sooner costs nothing, as Ray waits for 60 s."""
AGAIN_S = 2.0
"""The driver is interrupted again after so many seconds: Ray's code may have swallowed the first time."""
TIMES = 3
"""How often. A driver that is still in Ray's code then waits there for its head, and hears no signal for a minute."""


class RayLost(BaseException):
    """The head of Ray is gone, and with it the study's runs.

    Not an Exception: Tune would treat it as the failure of one trial and go on with the next.
    """


class HeadWatch:
    """Asks the head at `address` (HOST:PORT) on a thread, and interrupts the main thread, as Ctrl-C does, where it is
    lost. Where that is stuck in Ray's code, the thread calls `close` and ends the process."""

    def __init__(self, address: str, close: Callable[[], object]) -> None:
        self.address = address
        self.close = close
        self._lost = self._silent = self._closes = False
        self._turn = threading.Lock()
        self._over = threading.Event()
        threading.Thread(target=self._watch, name="head-watch", daemon=True).start()

    def end(self) -> None:
        """Watch and interrupt no more. It does not return where the thread closes the study already."""
        with self._turn:
            if not self._closes:
                self._over.set()
                return
        threading.Event().wait()

    @property
    def lost(self) -> bool:
        """Whether the head is gone."""
        return self._lost

    def explains(self, error: BaseException) -> bool:
        """Whether an error is one of a head that is gone: Ray's calls may fail before it counts as lost."""
        if isinstance(error, Exception) and self._silent:
            self._lost = True
        return self._lost

    def error(self) -> RayLost:
        """What the user is told."""
        return RayLost(
            f"the head of Ray at {self.address} is gone, and with it the processes of the runs; what they have saved "
            "is in the store: when Ray is there again, run the same command to go on"
        )

    def _watch(self) -> None:
        since: float | None = None
        while not self._over.wait(ASK_S):
            allowed_s = _patience(self.address)
            self._silent = allowed_s is not None
            if allowed_s is None:
                since = None
                continue
            since = since or time.monotonic()
            if time.monotonic() - since >= allowed_s:
                self._lost = True
                break
        for _ in range(TIMES):
            if (main := threading.main_thread().ident) is None or self._over.is_set():
                return
            signal.pthread_kill(main, signal.SIGINT)
            self._over.wait(AGAIN_S)
        with self._turn:
            self._closes = not self._over.is_set()
        if self._closes:
            try:
                self.close()
            finally:  # what could not be closed is by the next start
                print(f"stopped: {self.error()}", file=sys.stderr, flush=True)
                os._exit(EXIT_CODE)


def _patience(address: str) -> float | None:
    """None where the head answers; else for how many seconds that may last."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
    except ConnectionRefusedError:
        return REFUSED_S
    except OSError:
        return SILENT_S
    return None
