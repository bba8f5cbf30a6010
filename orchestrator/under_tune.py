"""Train runs, or a search, under Ray Tune on the machines that Ray has; `launch.py` says which, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ablations.study.schema import Study
from cluster.concurrency import Shape, footprint, shape_of
from cluster.machine_types import Machine
from cluster.spec import ClusterSpec, spec_of
from orchestrator.prepare.cohort_costs import cohorts_of
from orchestrator.prepare.jobs import Job, Preparer
from orchestrator.prepare.room import at_once, specs_of
from orchestrator.running.callbacks import RunCallbacks
from orchestrator.running.claims import Claims
from orchestrator.running.job_queue import JobQueue
from orchestrator.running.machines.machine_watch import MachineWatch
from orchestrator.running.shares.share import Share
from orchestrator.running.tuner import fit
from orchestrator.search.driver import SearchDriver
from orchestrator.state.study_state import StudyState
from orchestrator.store.ledger import Ledger
from orchestrator.store.run_folder import checkpoint_lost
from orchestrator.terminal.live_view import Live
from orchestrator.terminal.log_lines import Lines
from orchestrator.tracking.mirror import Mirror
from trainer.config import TrainConfig

MakeView = Callable[[], Lines | Live]
"""Makes the view of one phase, a context manager."""


class UnderTune:
    """The machines of one launch, and how jobs are spread over them. Raises SpecError where no run of `state` fits."""

    share: Share | None = None
    """This driver's share of a cluster that it has not alone."""

    def __init__(
        self,
        preparer: Preparer,
        ledger: Ledger,
        state: StudyState,
        machines: Sequence[Machine],
        mirror: Mirror,
        make_view: MakeView,
        *,
        retry_failed: bool,
    ) -> None:
        self.preparer = preparer
        self.ledger = ledger
        self.spec = preparer.spec
        self.store = preparer.store
        self.study = preparer.study
        self.mirror = mirror
        self.make_view = make_view
        self.retry_failed = retry_failed
        self.watch = MachineWatch(self.spec)
        self.at_once: dict[Shape, int] = at_once(specs_of(state, self.spec), machines)
        """How many runs of each shape the machines hold at once."""
        self.slots = max(self.at_once.values())
        """The number of runs at once; where their shapes differ, of the shape of which most fit."""

    @property
    def trials_at_once(self) -> int:
        """The most trials of all shapes together."""
        most = sum(self.at_once.values())
        limit = self.spec.max_runs if self.spec.concurrency == "auto" else self.spec.concurrency
        return min(most, limit or most)

    def cohorts(self, jobs: Sequence[Job], planned: Mapping[str, TrainConfig]) -> list[list[Job]]:
        """Which jobs train together, in the order of their start. `planned`: key -> config of all runs of the study."""
        alike: dict[Shape, list[Job]] = {}
        for job in jobs:
            alike.setdefault(shape_of(self._spec_of(job)), []).append(job)
        return [
            cohort
            for shape, some in alike.items()
            for cohort in cohorts_of(
                some,
                self.preparer.check,
                self.ledger,
                self.store,
                self._spec_of(some[0]),
                planned,
                self.at_once.get(shape, self.slots),
            )
        ]

    def train(self, cohorts: Sequence[Sequence[Job]], more: Callable[[], list[list[Job]]]) -> None:
        """Train the cohorts, and those of `more`, which is asked after each teacher."""
        with self.make_view() as view, Claims(self.study, self.store, self.ledger) as claims:
            view.progress.slots = self.slots

            def is_done(job: Job) -> bool:
                return self._trained_elsewhere(job, view)

            queue = JobQueue(
                cohorts,
                self.spec,
                self.store,
                claims,
                more=more,
                is_done=is_done,
                waits=view.queued,
                at_once=self.at_once if len(self.at_once) > 1 else None,
                # among so many runs the machines are shared where a run may have more or fewer workers
                sharing=max(1, min(self.trials_at_once, len(cohorts))),
            )
            callbacks = RunCallbacks(
                queue.jobs, self.ledger, self.mirror, view, ended=claims.give_back, avoided=self.watch.look
            )
            queue.keep_to(self.share, view.held)
            while queue.ready():
                fit(self.study, self.spec, self.store, self.trials_at_once, callbacks, queue)

    def search(self, study: Study, planned: Callable[[], Mapping[str, TrainConfig]]) -> None:
        """Run the trials that a search still has to do."""
        # of a store at an address a run on another machine does not hear that it is to end before the others
        apart = self.store.shared is not None and self.spec.address != "local"

        def cohorts(jobs: Sequence[Job]) -> list[list[Job]]:
            return [[job] for job in jobs] if apart else self.cohorts(jobs, planned())

        given = spec_of(self.spec, "trial", "")
        slots = self.at_once.get(shape_of(given), self.slots)
        with self.make_view() as view, Claims(self.study, self.store, self.ledger) as claims:
            search = SearchDriver(study, self.preparer, self.ledger, cohorts, claims)
            view.progress.slots = slots
            callbacks = RunCallbacks(
                search.jobs, self.ledger, self.mirror, view, search.waits, claims.give_back, self.watch.look
            )
            search.callbacks = callbacks
            search.searcher.keep_to(self.share, view.held, footprint(given))
            while search.searcher.ready():
                fit(self.study, self.spec, self.store, slots, callbacks, search.searcher, search.scheduler)

    def _trained_elsewhere(self, job: Job, view: Lines | Live) -> bool:
        """Record a run that the driver of another study has finished since this one began, or that failed for good;
        False where there is none."""
        run = self.ledger.run(job.run_id)
        if run is None or (job.run.role == "teacher" and checkpoint_lost(self.store, run)):
            return False
        if run.status != "finished" and (run.cause != "nan" or self.retry_failed):
            return False
        self.ledger.append(job.event("reused"))
        self.mirror.job(job)
        view.ended(job, run.status, f"trained by study {run.trained_by}" if run.trained_by else "imported")
        return True

    def _spec_of(self, job: Job) -> ClusterSpec:
        return spec_of(self.spec, job.run.role, job.run.arm)
