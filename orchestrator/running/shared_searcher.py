"""SharedSearcher: a Tune searcher some of whose runs other drivers train, on a cluster that it may share with them.

Where only such runs are left, or the study's share of the cluster is in use by others, it ends, so that Tune gives its
processes and GPUs back, which the other driver may need; `ready` waits, and Tune is started again.
"""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from ray.tune.search import Searcher

from orchestrator.running.group_size import WORKERS
from orchestrator.running.ray_session import raise_if_interrupted
from orchestrator.running.shares.share import Share

LOOK_S = 1.0
"""So often it is looked whether the runs of other drivers have ended, in seconds."""


def together(settings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The config of a trial whose runs train together: the settings of each, and how many may train side by side."""
    return {"jobs": list(settings), "most": len(settings)}


def needed(config: dict[str, Any], workers: int | None = None) -> dict[str, float]:
    """Ray resources of a trial: of its runs, which share a process. `workers`: their number, of a range the lower."""
    job = config["jobs"][0]
    return {name: (workers or job["group_sizes"][0]) * amount for name, amount in job["resources"].items()}


class SharedSearcher(Searcher):
    """Gives Tune what `next_config` finds."""

    def __init__(self) -> None:
        super().__init__()
        self._share: Share | None = None
        self._need: dict[str, float] | None = None
        self._prepared: dict[str, Any] | None = None
        self._blocked = False
        """Whether the next config depended on trials that train, when it was asked for last."""
        self._trials: dict[str, dict[str, float]] = {}
        """Tune's ids of the trials that train -> the Ray resources that they take."""
        self._configs: dict[str, dict[str, Any]] = {}
        """Tune's ids of the trials that train -> their configs."""
        self._looked = -math.inf

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles a searcher for its own restore, which is not used."""
        return {}

    @abstractmethod
    def next_config(self) -> dict[str, Any] | str | None:
        """The config of the next trial, whose runs are claimed; None where it depends on trials that train, here or
        elsewhere; FINISHED after the last."""

    @abstractmethod
    def startable(self) -> int:
        """The trials that may be started now, at most: some may depend on others, or be other drivers'."""

    def started(self, trial_id: str, config: dict[str, Any]) -> None:
        """A config has become a trial."""

    def ready(self) -> bool:
        """Whether there is something to train, which is kept for the next trial; waits while other drivers train what
        is left, or use the cluster. Call it while Tune does not run."""
        while self._prepared is None:
            found = self._find()
            if isinstance(found, str):
                return False
            if found is None:
                self.is_held()  # nothing is wanted meanwhile
                self._wait()
            self._prepared = found
        while self.is_held():
            self._wait()
        return True

    def _wait(self) -> None:
        raise_if_interrupted()
        time.sleep(LOOK_S)

    def keep_to(self, share: Share | None, tell: Callable[[str], None], need: dict[str, float] | None = None) -> None:
        """Keep to the study's share of a cluster, where other drivers may use it; `tell` hears why a trial waits for
        it, and an empty text when none does any more. `need`: Ray resources of a trial, by default of all runs."""
        self._share, self._need = share, need
        if share is not None:
            share.tell = tell

    def is_held(self) -> bool:
        """Whether there are trials that must wait for the study's share of the cluster."""
        if self._share is None:
            return False
        more = (self._prepared is not None) + (0 if self._blocked else self.startable())
        need = self.next_need() if self._prepared is None else needed(self._prepared)
        held = {name: sum(each.get(name, 0.0) for each in self._trials.values()) for name in ("CPU", "GPU")}
        return self._share.holds_back(len(self._trials), more, need, held)

    def next_need(self) -> dict[str, float] | None:
        """Ray resources of the trial that would be next; None: those of all runs."""
        return self._need

    def _find(self) -> dict[str, Any] | str | None:
        found = self.next_config()
        self._blocked = found is None
        return found

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The config of the next trial; None while trials train on which it depends; FINISHED where there is none, or
        where other drivers train what is left."""
        found: dict[str, Any] | str | None = self._prepared
        self._prepared = None
        if found is None:
            if self._trials and time.monotonic() - self._looked < LOOK_S:
                return None
            found = self._find()
        if isinstance(found, dict):
            self._trials[trial_id], self._configs[trial_id] = needed(found), found
            self.started(trial_id, found)
        elif found is None:
            self._looked = time.monotonic()
            return None if self._trials else Searcher.FINISHED
        return found

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A run of several workers may have more of them than it needs, or fewer than before."""
        if WORKERS in result and trial_id in self._trials:
            self._trials[trial_id] = needed(self._configs[trial_id], result[WORKERS])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial has ended, on which the next may depend."""
        self._trials.pop(trial_id, None)
        self._configs.pop(trial_id, None)
        self._looked = -math.inf
        self._blocked = False

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger holds all results."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the ledger holds all results."""
