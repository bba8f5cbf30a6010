"""JobQueue: a list of cohorts as a Tune searcher, so that starting n jobs takes time proportional to n.

`tune.grid_search` over n settings expands all of them before the first trial starts, in time proportional to n squared.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ray.tune.search import Searcher

from cluster.spec import ClusterSpec
from orchestrator.prepare.jobs import Job
from orchestrator.store.folder import Store


def together(settings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The config of a trial whose runs train together: the settings of each, and how many may train side by side."""
    return {"jobs": list(settings), "most": len(settings)}


class JobQueue(Searcher):
    """Gives Tune the cohorts in their order, each once; a job that trains alone is a cohort of one.

    After each teacher's trial it asks for `more` cohorts: students whose teacher has finished start while others train.
    """

    def __init__(
        self,
        cohorts: Sequence[Sequence[Job]],
        spec: ClusterSpec,
        store: Store,
        more: Callable[[], Sequence[Sequence[Job]]] = list,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.store = store
        self.more = more
        self.jobs: dict[str, Job] = {}
        """Run id -> job, of all cohorts so far."""
        self._left: deque[Sequence[Job]] = deque()
        self._teachers: set[str] = set()
        """Tune's ids of the trials that train teachers."""
        self._asks = False
        self._add(cohorts)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles a searcher for its own restore, which is not used."""
        return {}

    def _add(self, cohorts: Sequence[Sequence[Job]]) -> None:
        self._left.extend(cohorts)
        self.jobs.update((job.run_id, job) for cohort in cohorts for job in cohort)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The settings of the next jobs; None while jobs may wait for a teacher; FINISHED after the last."""
        if self._asks:
            self._asks = False
            self._add(self.more())
        if not self._left:
            return None if self._teachers else Searcher.FINISHED
        jobs = self._left.popleft()
        if any(job.run.role == "teacher" for job in jobs):
            self._teachers.add(trial_id)
        return together([job.settings(self.spec, self.store) for job in jobs])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A teacher's end is a reason to ask for more."""
        self._asks |= trial_id in self._teachers
        self._teachers.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""
