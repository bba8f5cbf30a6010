"""JobQueue: a list of cohorts as a Tune searcher, so that starting n jobs takes time proportional to n.

`tune.grid_search` over n settings expands all of them before the first trial starts, in time proportional to n squared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray.tune.search import Searcher

from cluster.spec import ClusterSpec
from orchestrator.prepare.jobs import Job
from orchestrator.store.folder import Store


def together(settings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The config of a trial whose runs train together: the settings of each, and how many may train side by side."""
    return {"jobs": list(settings), "most": len(settings)}


class JobQueue(Searcher):
    """Gives Tune the cohorts in their order, each once; a job that trains alone is a cohort of one."""

    def __init__(self, cohorts: Sequence[Sequence[Job]], spec: ClusterSpec, store: Store) -> None:
        super().__init__()
        self.spec = spec
        self.store = store
        self._left = iter(cohorts)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles a searcher for its own restore, which is not used."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The settings of the next jobs; FINISHED after the last."""
        jobs = next(self._left, None)
        return Searcher.FINISHED if jobs is None else together([job.settings(self.spec, self.store) for job in jobs])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: the list is fixed."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""
