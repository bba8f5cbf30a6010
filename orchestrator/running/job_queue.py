"""JobQueue: a list of cohorts as a Tune searcher, so that starting n jobs takes time proportional to n.

`tune.grid_search` over n settings expands all of them before the first trial starts, in time proportional to n squared.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ray.tune.search import Searcher

from cluster.spec import ClusterSpec
from orchestrator.prepare.jobs import Job
from orchestrator.running.claims import Claims
from orchestrator.store.folder import Store

LOOK_S = 1.0
"""So often runs are looked at that other drivers train, in seconds."""


def together(settings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The config of a trial whose runs train together: the settings of each, and how many may train side by side."""
    return {"jobs": list(settings), "most": len(settings)}


class JobQueue(Searcher):
    """Gives Tune the cohorts in their order, each once; a job that trains alone is a cohort of one.

    After each teacher's trial it asks for `more` cohorts: students whose teacher has finished start while others train.
    A run that another driver trains is left to it; `waits` is told of it. Once that driver has ended it, `is_done`
    records its result, or says that it is to be trained here.
    """

    def __init__(
        self,
        cohorts: Sequence[Sequence[Job]],
        spec: ClusterSpec,
        store: Store,
        claims: Claims,
        *,
        more: Callable[[], Sequence[Sequence[Job]]] = list,
        is_done: Callable[[Job], bool] = lambda job: False,
        waits: Callable[[Job, str], None] = lambda job, why: None,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.store = store
        self.claims = claims
        self.more = more
        self.is_done = is_done
        self.waits = waits
        self.jobs: dict[str, Job] = {}
        """Run id -> job, of all cohorts so far."""
        self._left: deque[Sequence[Job]] = deque()
        self._elsewhere: list[Job] = []
        self._looked = 0.0
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
        """The settings of the next jobs; None while jobs may wait for a teacher or another driver; FINISHED after the
        last."""
        if self._elsewhere and time.monotonic() - self._looked > LOOK_S:
            self._look_elsewhere()
        if self._asks:
            self._asks = False
            self._add(self.more())
        while self._left:
            if jobs := [job for job in self._left.popleft() if self._is_ours(job)]:
                if any(job.run.role == "teacher" for job in jobs):
                    self._teachers.add(trial_id)
                return together([job.settings(self.spec, self.store) for job in jobs])
        return None if self._teachers or self._elsewhere or self._asks else Searcher.FINISHED

    def _look_elsewhere(self) -> None:
        """Queue the runs that no other driver trains any more."""
        self._looked = time.monotonic()
        free = [job for job in self._elsewhere if self.claims.take(job.run_id)]
        self._elsewhere = [job for job in self._elsewhere if job not in free]
        self._left.extend([job] for job in free)

    def _is_ours(self, job: Job) -> bool:
        """Whether a run is to be trained by this driver, which has claimed it then."""
        if not self.claims.take(job.run_id):
            self._elsewhere.append(job)
            self.waits(job, f"trained by {self.claims.claimant(job.run_id)}")
            return False
        if self.is_done(job):
            self.claims.give_back(job.run_id)
            self._asks |= job.run.role == "teacher"
            return False
        return True

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A teacher's end is a reason to ask for more."""
        self._asks |= trial_id in self._teachers
        self._teachers.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""
