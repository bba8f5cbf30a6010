"""Launch: one `transkd run` of a study. Check every run, start the missing ones under Ray Tune, record the results."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.study.schema import Study
from cluster.concurrency import Shape, footprint, shape_of
from cluster.machine_types import Machine
from cluster.spec import ClusterSpec, spec_of
from orchestrator.prepare.cohort_costs import cohorts_of, in_words
from orchestrator.prepare.jobs import Job, Preparer
from orchestrator.prepare.room import at_once, specs_of
from orchestrator.prepare.study_checks import check_study
from orchestrator.running.machines.head_watch import RayLost
from orchestrator.runs_left import (
    arms_due,
    beside_teachers,
    count_left,
    is_final_failure,
    lacks_teacher,
    missing_teachers,
    to_train,
    trials_left,
    trials_to_retry,
    with_teacher,
)
from orchestrator.search.resume import refuse_changed, retry
from orchestrator.state.study_state import StudyRun, StudyState
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger
from orchestrator.store.run_folder import checkpoint_lost, reconcile, record_end
from orchestrator.terminal.live_view import Live
from orchestrator.terminal.log_lines import Lines
from orchestrator.tracking.mirror import Mirror
from trainer.config import Sources, counted

if TYPE_CHECKING:
    from orchestrator.running.machines.machine_watch import MachineWatch
    from orchestrator.running.shares.share import Share

MakeView = Callable[[], Lines | Live]
"""Makes the view of one phase, a context manager."""


class Launch:
    """One `transkd run` of a study: `prepare` checks everything, `run` starts what is missing."""

    def __init__(
        self,
        study: Study,
        spec: ClusterSpec,
        store: Store,
        roots: Mapping[str, Path],
        *,
        retry_failed: bool = False,
    ) -> None:
        self.study = study
        self.retry_failed = retry_failed
        self.spec = spec
        self.store = store
        self.ledger = Ledger(store.ledger, study.name)
        self.preparer = Preparer(study.name, spec, store, roots)
        self.at_once: dict[Shape, int] = {}
        """How many runs of each shape the machines hold at once; known once Ray is there."""
        self.sources: Sources | None = None
        self.state = StudyState(study, self.ledger, retry_failed=retry_failed)
        self.say: Callable[[str], None] = lambda text: None
        self.close: Callable[[], object] = lambda: None
        """Writes the report and ends tracking, where Ray was lost and the thread of `run` is stuck in it."""
        self.share: Share | None = None
        self.machines: MachineWatch
        """There once Ray is."""

    def prepare(self, say: Callable[[str], None]) -> None:
        """Raise UserError for what cannot run. The cheapest checks come first: resources, batch sizes, folders,
        structures, limits, data."""
        configs = check_study(self.state, self.preparer, say)
        say("structures checked; reading the data")
        self.sources = self.preparer.reader.read(configs.values(), say)
        self.refresh()
        self.preparer.teachers = {key: run.run_id for key, run in self.state.teachers.items()}
        for search in self.state.searches:
            refuse_changed(search, self.preparer.reader.run_id)

    def refresh(self) -> None:
        """Read the ledger again. Arms whose search has ended get the values of its best trial."""
        self.state = StudyState(self.study, self.ledger, self.sources, self.state, retry_failed=self.retry_failed)

    def run(self, mirror: Mirror, make_view: MakeView, say: Callable[[str], None] = lambda text: None) -> None:
        """Train what is missing: teachers, then searches, then arms. The caller holds the study's lease. `say` prints
        what is waited for before the first view."""
        reconcile(self.ledger, self.store)
        self.refresh()
        for search in self.state.searches:
            retry(search.study, self.ledger, trials_to_retry(self.state, search))
        self.refresh()
        self._reuse(self.state.runs, mirror)
        if count_left(self.state):
            say("starting Ray" if self.spec.address == "local" else f"joining Ray at {self.spec.address}")
            self.say = say
            try:
                self._run(mirror, make_view)
            except RayLost:
                self._interrupted()
                raise
        mirror.ended(self.state)  # also runs and trials that ended without a driver

    def _interrupted(self) -> None:
        """Record how the runs ended that this driver trained when it lost Ray."""
        for run in list(self.ledger.outcomes().values()):
            if run.status == "running" and run.trained_by == self.study.name:
                record_end(self.ledger, self.store, run.run_id)

    def _close(self) -> None:
        self._interrupted()
        self.close()

    def _reuse(self, runs: Sequence[StudyRun], mirror: Mirror) -> None:
        """Record finished runs and final failures as runs of this study, where another study did them."""
        for run in runs:
            if run.plan.awaits or not (run.finished or is_final_failure(self.state, run)):
                continue
            if all(member.study != self.study.name or member.arm != run.plan.arm for member in run.run.members):
                self.ledger.append(self.job(run).event("reused"))
            mirror.send(run.run_id, run.plan.arm, run.plan.seed, run.plan.role)

    def job(self, run: StudyRun) -> Job:
        """The job of a run."""
        return self.preparer.job(run.plan, run.run_id)

    def _run(self, mirror: Mirror, make_view: MakeView) -> None:
        from orchestrator.running.machines.machine_watch import MachineWatch
        from orchestrator.running.ray_session import session
        from orchestrator.running.shares.share import shared

        with contextlib.ExitStack() as held:
            machines = held.enter_context(session(self.spec, self.store, self.say, self._close))
            slots = self.slots(machines)
            self.machines = MachineWatch(self.spec)
            self.share = held.enter_context(shared(self.spec, self._trials_at_once(slots), self.say))
            self.say(f"Ray is there, with room for {counted(slots, 'run')} at once; waiting for its first process")
            tried = self._train_teachers(slots, mirror, make_view)
            for search in self.state.searches:
                if trials_left(self.state, search) and not lacks_teacher(self.state, search.arm):
                    self._search(search.study, slots, mirror, make_view)
            before = {run.run_id for run in self.state.runs}
            self.refresh()
            self._reuse([run for run in self.state.runs if run.run_id not in before], mirror)
            while todo := [run for run in to_train(self.state, arms_due(self.state)) if run.run_id not in tried]:
                # a look that is reached only now may need a teacher whose checkpoint is gone
                self._train([run for run in self.state.teachers.values() if run.lost], slots, mirror, make_view)
                tried |= {run.run_id for run in todo}
                self._train(todo, slots, mirror, make_view)

    def _train_teachers(self, slots: int, mirror: Mirror, make_view: MakeView) -> set[str]:
        """Train the teachers, and beside them the students that need none or whose own has finished; returns the ids.

        The students of a study with a search wait for its end: it may set their values.
        """
        teachers = list(self.state.teachers.values())
        tried = {run.run_id for run in teachers}

        def taught() -> list[StudyRun]:
            if self.state.searches or not any(run.finished for run in self.state.teachers.values()):
                found = beside_teachers(self.state, slots, self._cost)
            else:
                found = with_teacher(self.state, to_train(self.state, arms_due(self.state)))
            new = [run for run in found if run.run_id not in tried]
            tried.update(run.run_id for run in new)
            return new

        self._train(teachers, slots, mirror, make_view, taught)
        return tried

    def _cost(self, run: StudyRun) -> float:
        """The cost of a run without a teacher, in operations of an image."""
        return run.plan.config.optim.epochs * self.preparer.check(run.plan.config)["gmacs"]

    def _train(
        self,
        runs: Sequence[StudyRun],
        slots: int,
        mirror: Mirror,
        make_view: MakeView,
        follow: Callable[[], list[StudyRun]] = list,
    ) -> None:
        """Train the runs that have not finished; beside them those of `follow`, which is asked now and after each
        teacher. Students whose teacher did not finish are recorded as failed."""
        untaught = missing_teachers(self.state)
        todo = []
        for run in to_train(self.state, runs):
            if run.plan.needs in untaught:
                self._without_teacher(run, untaught[run.plan.needs], mirror)
            else:
                todo.append(self.job(run))
        self.refresh()

        def more() -> list[list[Job]]:
            self.refresh()
            return self._cohorts([self.job(run) for run in follow()], slots, say=True)

        if todo:
            cohorts = [*self._cohorts(todo, slots, say=True), *more()]
            with make_view() as view:
                view.progress.slots = slots
                self._tune(cohorts, more, slots, mirror, view)
        self.refresh()

    def _cohorts(self, jobs: Sequence[Job], slots: int, *, say: bool = False) -> list[list[Job]]:
        """Which jobs train together, in the order of their start."""
        planned = {run.plan.key: run.plan.config for run in self.state.runs}
        alike: dict[Shape, list[Job]] = {}
        for job in jobs:
            alike.setdefault(shape_of(self._spec_of(job)), []).append(job)
        cohorts = [
            cohort
            for shape, some in alike.items()
            for cohort in cohorts_of(
                some,
                self.preparer.check,
                self.ledger,
                self.store,
                self._spec_of(some[0]),
                planned,
                self.at_once.get(shape, slots),
            )
        ]
        if say and (said := in_words([len(cohort) for cohort in cohorts])):
            self.say(said)
        return cohorts

    def _spec_of(self, job: Job) -> ClusterSpec:
        return spec_of(self.spec, job.run.role, job.run.arm)

    def slots(self, machines: Sequence[Machine]) -> int:
        """The number of runs at once; where their shapes differ, of the shape of which most fit. Raises SpecError where
        no run fits."""
        self.at_once = at_once(specs_of(self.state, self.spec), machines)
        return max(self.at_once.values())

    def _trials_at_once(self, slots: int) -> int:
        """The most trials of all shapes together."""
        most = sum(self.at_once.values()) or slots
        limit = self.spec.max_runs if self.spec.concurrency == "auto" else self.spec.concurrency
        return min(most, limit or most)

    def _without_teacher(self, run: StudyRun, teacher: StudyRun, mirror: Mirror) -> None:
        why = teacher.run.reason
        reason = f"{teacher.label} did not finish" + (f": {why}" if why else "")
        claim = self.store.leases.claim(run.run_id, self.study.name)
        if claim is None:  # another driver trains it: it has the teacher
            return
        self.ledger.append(self.job(run).event("failed", reason=reason, cause="teacher"))
        claim.give_back()
        mirror.send(run.run_id, run.plan.arm, run.plan.seed, run.plan.role)

    def _tune(
        self,
        cohorts: Sequence[Sequence[Job]],
        more: Callable[[], list[list[Job]]],
        slots: int,
        mirror: Mirror,
        view: Lines | Live,
    ) -> None:
        from orchestrator.running.callbacks import RunCallbacks
        from orchestrator.running.claims import Claims
        from orchestrator.running.job_queue import JobQueue
        from orchestrator.running.tuner import fit

        def is_done(job: Job) -> bool:
            return self._trained_elsewhere(job, mirror, view)

        with Claims(self.study.name, self.store, self.ledger) as claims:
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
                sharing=max(1, min(self._trials_at_once(slots), len(cohorts))),
            )
            callbacks = RunCallbacks(
                queue.jobs, self.ledger, mirror, view, ended=claims.give_back, avoided=self.machines.look
            )
            queue.keep_to(self.share, view.held)
            while queue.ready():
                fit(self.study.name, self.spec, self.store, self._trials_at_once(slots), callbacks, queue)

    def _trained_elsewhere(self, job: Job, mirror: Mirror, view: Lines | Live) -> bool:
        """Record a run that the driver of another study has finished since this one began, or that failed for good;
        False where there is none."""
        run = self.ledger.run(job.run_id)
        if run is None or (job.run.role == "teacher" and checkpoint_lost(self.store, run)):
            return False
        if run.status != "finished" and (run.cause != "nan" or self.retry_failed):
            return False
        self.ledger.append(job.event("reused"))
        mirror.job(job)
        view.ended(job, run.status, f"trained by study {run.trained_by}" if run.trained_by else "imported")
        return True

    def _search(self, study: Study, slots: int, mirror: Mirror, make_view: MakeView) -> None:
        from orchestrator.running.callbacks import RunCallbacks
        from orchestrator.running.claims import Claims
        from orchestrator.running.tuner import fit
        from orchestrator.search.driver import SearchDriver

        # of a store at an address a run on another machine does not hear that it is to end before the others
        apart = self.store.shared is not None and self.spec.address != "local"

        def cohorts(jobs: Sequence[Job]) -> list[list[Job]]:
            return [[job] for job in jobs] if apart else self._cohorts(jobs, slots)

        slots = self.at_once.get(shape_of(spec_of(self.spec, "trial", "")), slots)
        with make_view() as view, Claims(self.study.name, self.store, self.ledger) as claims:
            search = SearchDriver(study, self.preparer, self.ledger, cohorts, claims)
            view.progress.slots = slots
            callbacks = RunCallbacks(
                search.jobs, self.ledger, mirror, view, search.waits, claims.give_back, self.machines.look
            )
            search.callbacks = callbacks
            search.searcher.keep_to(self.share, view.held, footprint(spec_of(self.spec, "trial", "")))
            while search.searcher.ready():
                fit(self.study.name, self.spec, self.store, slots, callbacks, search.searcher, search.scheduler)
        self.refresh()
