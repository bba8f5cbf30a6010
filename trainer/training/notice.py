"""Notice: whether the machine of a run is about to be taken away, which all its workers see after the same step."""

from __future__ import annotations

import time
from collections.abc import Callable

from trainer import parallel

LOOK_S = 5.0
"""Workers ask each other about so often: it costs a step's synchronisation."""


class Notice:
    """Asks `leaves`, that of this process, after the steps of an epoch."""

    def __init__(self, leaves: Callable[[], bool]) -> None:
        self._leaves = leaves
        self._since, self._steps, self._every = time.monotonic(), 0, 1

    def seen(self) -> bool:
        """Whether a worker's machine is about to be taken away. All workers call it after each step."""
        if parallel.world() == 1:
            return self._leaves()
        self._steps += 1
        if self._steps < self._every:
            return False
        now = time.monotonic()
        step_s = (now - self._since) / self._steps
        said = parallel.all_said((self._leaves(), step_s))
        self._since, self._steps = now, 0
        due = int(LOOK_S / max(1e-9, *(other_s for _, other_s in said)))
        self._every = max(1, min(2 * self._every, due))  # the first steps on a GPU are only queued, and seem short
        return any(leaves for leaves, _ in said)
