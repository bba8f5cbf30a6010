"""JobQueue: a list of jobs as a Tune searcher, so that starting n jobs takes time proportional to n.

`tune.grid_search` over n settings expands all of them before the first trial starts, in time proportional to n squared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray.tune.search import Searcher

from cluster.spec import ClusterSpec
from orchestrator.prepare.jobs import Job
from orchestrator.store.folder import Store


class JobQueue(Searcher):
    """Gives Tune the jobs in their order, each once."""

    def __init__(self, jobs: Sequence[Job], spec: ClusterSpec, store: Store) -> None:
        super().__init__()
        self.spec = spec
        self.store = store
        self._left = iter(jobs)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles a searcher for its own restore, which is not used."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The settings of the next job; FINISHED after the last."""
        job = next(self._left, None)
        return Searcher.FINISHED if job is None else {"job": job.settings(self.spec, self.store)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: the list is fixed."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""
