"""JobQueue: a list of cohorts as a Tune searcher, so that starting n jobs takes time proportional to n.

`tune.grid_search` over n settings expands all of them before the first trial starts, in time proportional to n squared.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray.tune.search import Searcher

from cluster.concurrency import Shape, footprint, shape_of
from cluster.spec import ClusterSpec, spec_of
from orchestrator.prepare.jobs import Job
from orchestrator.running.claims import Claims
from orchestrator.running.shared_searcher import SharedSearcher, together
from orchestrator.store.folder import Store


class JobQueue(SharedSearcher):
    """Gives Tune the cohorts in their order, each once; a job that trains alone is a cohort of one.

    After each teacher's trial it asks for `more` cohorts: students whose teacher has finished start while others train.
    A run that another driver trains is left to it; `waits` is told of it. Once that driver has ended it, `is_done`
    records its result, or says that it is to be trained here. `at_once` is the most trials of a shape that train at
    once, where this is limited: more of them would make an autoscaler start machines that are meant for others.
    `sharing` is the number of runs that share the machines, of all shapes, where a run may have more or fewer workers.
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
        at_once: Mapping[Shape, int] | None = None,
        sharing: int | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.store = store
        self.claims = claims
        self.more = more
        self.is_done = is_done
        self.waits = waits
        self.at_once = at_once or {}
        self.sharing = sharing
        self.jobs: dict[str, Job] = {}
        """Run id -> job, of all cohorts so far."""
        self._left: deque[Sequence[Job]] = deque()
        self._elsewhere: list[Job] = []
        self._teachers: set[str] = set()
        """Tune's ids of the trials that train teachers."""
        self._asks = False
        self._training: dict[str, Shape] = {}
        """Tune's ids of the trials that train -> their shape."""
        self._add(cohorts)

    def _add(self, cohorts: Sequence[Sequence[Job]]) -> None:
        self._left.extend(cohorts)
        self.jobs.update((job.run_id, job) for cohort in cohorts for job in cohort)

    def next_config(self) -> dict[str, Any] | str | None:
        """The settings of the next jobs; None while jobs may wait for a teacher or for the place of others of their
        shape, and while another driver trains what is left; FINISHED after the last."""
        self._look_elsewhere()
        while self._left or self._asks:
            if self._asks:
                self._asks = False
                self._add(self.more())
            elif (cohort := self._next_with_a_place()) is None:
                return None
            elif jobs := [job for job in cohort if self._is_ours(job)]:
                return together([job.settings(self.spec, self.store, self.sharing) for job in jobs])
        return None if self._teachers or self._elsewhere else Searcher.FINISHED

    def startable(self) -> int:
        """The cohorts in the queue; one more where students may follow a teacher."""
        return len(self._left) + self._asks

    def next_need(self) -> dict[str, float] | None:
        """Of the first job in the queue, which may be another's."""
        if not self._left:
            return super().next_need()
        job = self._left[0][0]
        return footprint(spec_of(self.spec, job.run.role, job.run.arm))

    def started(self, trial_id: str, config: dict[str, Any]) -> None:
        """Remember the shapes of trials, and those that train teachers."""
        self._training[trial_id] = self._shape(self.jobs[config["jobs"][0]["run_id"]])
        if any(self.jobs[settings["run_id"]].run.role == "teacher" for settings in config["jobs"]):
            self._teachers.add(trial_id)

    def _shape(self, job: Job) -> Shape:
        return shape_of(spec_of(self.spec, job.run.role, job.run.arm))

    def _next_with_a_place(self) -> Sequence[Job] | None:
        """The first cohort that may train beside those of its shape that do; None where none may now."""
        used = Counter(self._training.values())
        full = {shape for shape, most in self.at_once.items() if used[shape] >= most}
        for number, cohort in enumerate(self._left if full else ()):
            if self._shape(cohort[0]) not in full:
                del self._left[number]
                return cohort
        return None if full else self._left.popleft()

    def _look_elsewhere(self) -> None:
        """Put the runs first in the queue that no other driver trains any more, unless it has ended them."""
        for job in list(self._elsewhere):
            if self.claims.take(job.run_id):
                self._elsewhere.remove(job)
                if not self._is_over(job):
                    self.claims.give_back(job.run_id)
                    self._left.appendleft([job])

    def _is_ours(self, job: Job) -> bool:
        """Whether a run is to be trained by this driver, which has claimed it then."""
        if self.claims.take(job.run_id):
            return not self._is_over(job)
        self._elsewhere.append(job)
        self.waits(job, f"trained by {self.claims.claimant(job.run_id)}")
        return False

    def _is_over(self, job: Job) -> bool:
        """Whether another driver has ended a run, which this one has claimed: then the claim is given back."""
        if not self.is_done(job):
            return False
        self.claims.give_back(job.run_id)
        self._asks |= job.run.role == "teacher"
        return True

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A teacher's end is a reason to ask for more."""
        super().on_trial_complete(trial_id, result, error)
        self._asks |= trial_id in self._teachers
        self._teachers.discard(trial_id)
        self._training.pop(trial_id, None)
