"""Launch: one `transkd run` of a study. Check every run, start the missing ones under Ray Tune, record the results."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.study.schema import Study
from cluster.concurrency import Shape, concurrency, footprint, shape_of
from cluster.machine_types import Machine
from cluster.spec import ClusterSpec, spec_of
from orchestrator.prepare.cohort_costs import cohorts_of, in_words
from orchestrator.prepare.jobs import Job, Preparer
from orchestrator.prepare.limits import LimitsCheck, deployed
from orchestrator.prepare.room import at_once, specs_of, unused_overrides
from orchestrator.prepare.search_space import refuse_infeasible
from orchestrator.running.head_watch import RayLost
from orchestrator.search.resume import refuse_changed, retry, to_retry
from orchestrator.state.study_state import SearchState, StudyRun, StudyState
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger
from orchestrator.store.run_folder import checkpoint_lost, reconcile, record_end
from orchestrator.terminal.live_view import Live
from orchestrator.terminal.log_lines import Lines
from orchestrator.tracking.mirror import Mirror
from trainer.compiler import check_compiler
from trainer.config import Sources, counted, located, parse

if TYPE_CHECKING:
    from orchestrator.running.share import Share

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

    def prepare(self, say: Callable[[str], None]) -> None:
        """Raise UserError for what cannot run. The cheapest checks come first: resources, batch sizes, folders,
        structures, limits, data."""
        from orchestrator.prepare.machine import here, slow_bf16

        if self.spec.address == "local":
            for spec in specs_of(self.state, self.spec).values():
                if spec.compile:
                    check_compiler("cuda" if spec.gpus_per_worker else "cpu")
                concurrency(spec, *here(with_gpus=spec.gpus_per_worker > 0))
        plan = [run.plan for run in self.state.runs]
        configs = {run.arm: run.config for run in plan}
        given = {run.arm: spec_of(self.spec, run.role, run.arm) for run in plan}
        if self.study.search is not None:
            configs["base"] = parse(self.study.base)
            given["base"] = spec_of(self.spec, "trial", "")
        if slow := slow_bf16((given[arm], config) for arm, config in configs.items()):
            say(slow)
        for arm, config in configs.items():
            with located(f"{self.study.name}: {arm}"):
                config.optim.group_sizes(given[arm].least_workers, given[arm].most_workers, self.spec.micro_batch)
        for config in {config.data.model_dump_json(): config for config in configs.values()}.values():
            with located(self.study.name):
                self.preparer.check_root(config)
        costs = {}
        if unused := unused_overrides(self.state, self.spec):
            say(unused)
        say("checking the structures of its runs")
        for arm, config in configs.items():
            with located(f"{self.study.name}: {arm}"):
                costs[arm] = self.preparer.check(config)
        with located(self.study.name):
            arms = deployed(self.study, plan)
            limits_check = LimitsCheck(self.study.limits, spec_of(self.spec, "arm", ""), self.store, self.ledger)
            limits_check.refuse(arms, costs)
        refuse_infeasible(self.study, self.preparer.check_trial, limits_check)
        say("structures checked; reading the data")
        self.sources = self.preparer.reader.read(configs.values(), say)
        self.refresh()
        self.preparer.teachers = {key: run.run_id for key, run in self.state.teachers.items()}
        for search in self.state.searches:
            refuse_changed(search, self.preparer.reader.run_id)

    def refresh(self) -> None:
        """Read the ledger again. Arms whose search has ended get the values of its best trial."""
        self.state = StudyState(self.study, self.ledger, self.sources, self.state, retry_failed=self.retry_failed)

    def todo(self, runs: Sequence[StudyRun]) -> list[StudyRun]:
        """The runs that are to be trained, each id once: neither finished nor final failures."""
        distinct = {run.run_id: run for run in reversed(runs) if not run.plan.awaits}
        return [run for run in reversed(distinct.values()) if not (run.finished or self.is_final_failure(run))]

    def is_final_failure(self, run: StudyRun) -> bool:
        """Whether a failed run is not to be retried; never with `retry_failed`."""
        return not self.retry_failed and self.state.is_final_failure(run)

    def unfinished(self) -> dict[str, str]:
        """Label -> reason of the runs that have not finished, without trials: the table shows how those ended."""
        found = {}
        for run in self.state.due:
            if run.plan.awaits:
                found[run.label] = self.state.outcomes[run.plan.key].reason
            elif not run.finished:
                found[run.label] = run.run.why if run.run.run_id else "not started"
        return found

    @property
    def due(self) -> list[StudyRun]:
        """The arms' runs that are needed now; finished runs may add those of the next look."""
        return [run for run in self.state.due if run.plan.role == "arm"]

    @property
    def teachers(self) -> list[StudyRun]:
        """The runs of teachers."""
        return list(self.state.teachers.values())

    def trials_left(self, state: SearchState) -> int:
        """Trials of a search that are still to be trained, those to retry included."""
        return state.left + len(self._to_retry(state))

    def _to_retry(self, state: SearchState) -> list[int]:
        def is_final(run: StudyRun) -> bool:
            return self.is_final_failure(run)

        return to_retry(state, self.state, is_final)

    def total(self) -> int:
        """The number of runs and trials, without the seeds of looks that have not been reached."""
        return len(self.state.due) + sum(state.search.trials for state in self.state.searches)

    def left(self) -> int:
        """The number of runs and trials that are still to be done."""
        trials = {state.arm: self.trials_left(state) for state in self.state.searches}
        to_come = sum(bool(run.plan.awaits and trials[run.plan.arm]) for run in self.state.due)
        return len(self.todo([*self.teachers, *self.due])) + to_come + sum(trials.values())

    def run(self, mirror: Mirror, make_view: MakeView, say: Callable[[str], None] = lambda text: None) -> None:
        """Train what is missing: teachers, then searches, then arms. The caller holds the study's lease. `say` prints
        what is waited for before the first view."""
        reconcile(self.ledger, self.store)
        self.refresh()
        for search in self.state.searches:
            retry(search.study, self.ledger, self._to_retry(search))
        self.refresh()
        self._reuse(self.state.runs, mirror)
        if self.left():
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
            if run.plan.awaits or not (run.finished or self.is_final_failure(run)):
                continue
            if all(member.study != self.study.name or member.arm != run.plan.arm for member in run.run.members):
                self.ledger.append(self.job(run).event("reused"))
            mirror.send(run.run_id, run.plan.arm, run.plan.seed, run.plan.role)

    def job(self, run: StudyRun) -> Job:
        """The job of a run."""
        return self.preparer.job(run.plan, run.run_id)

    def _run(self, mirror: Mirror, make_view: MakeView) -> None:
        from orchestrator.running.ray_session import session
        from orchestrator.running.share import shared

        with contextlib.ExitStack() as held:
            machines = held.enter_context(session(self.spec, self.store, self.say, self._close))
            slots = self.slots(machines)
            self.share = held.enter_context(shared(self.spec, self._trials_at_once(slots)))
            self.say(f"Ray is there, with room for {counted(slots, 'run')} at once; waiting for its first process")
            tried = self._train_teachers(slots, mirror, make_view)
            for state in self.state.searches:
                if self.trials_left(state) and not self._lacks_teacher(state.arm):
                    self._search(state.study, slots, mirror, make_view)
            before = {run.run_id for run in self.state.runs}
            self.refresh()
            self._reuse([run for run in self.state.runs if run.run_id not in before], mirror)
            while todo := [run for run in self.todo(self.due) if run.run_id not in tried]:
                # a look that is reached only now may need a teacher whose checkpoint is gone
                self._train([run for run in self.teachers if run.lost], slots, mirror, make_view)
                tried |= {run.run_id for run in todo}
                self._train(todo, slots, mirror, make_view)

    def _train_teachers(self, slots: int, mirror: Mirror, make_view: MakeView) -> set[str]:
        """Train the teachers, and beside them the students that need none or whose own has finished; returns the ids.

        The students of a study with a search wait for its end: it may set their values.
        """
        tried = {run.run_id for run in self.teachers}

        def taught() -> list[StudyRun]:
            if self.state.searches or not any(run.finished for run in self.teachers):
                found = self.beside_teachers(slots)
            else:
                found = self.with_teacher(self.todo(self.due))
            new = [run for run in found if run.run_id not in tried]
            tried.update(run.run_id for run in new)
            return new

        self._train(self.teachers, slots, mirror, make_view, taught)
        return tried

    def with_teacher(self, runs: Sequence[StudyRun]) -> list[StudyRun]:
        """The runs that need no teacher, or one that has finished."""
        missing = {run.plan.key for run in self.teachers if not run.finished}
        return [run for run in runs if run.plan.needs not in missing]

    def beside_teachers(self, slots: int) -> list[StudyRun]:
        """Runs without a teacher for the slots that would be free while teachers train, as many as end with these."""
        training = self.todo(self.teachers)
        free = (slots - len(training)) * max(map(self._cost, training), default=0.0)
        chosen = []
        for run in self.todo(self.due):
            if run.plan.teacher is None and free > 0:
                chosen.append(run)
                free -= self._cost(run)
        return chosen

    def _cost(self, run: StudyRun) -> float:
        """The cost of a run without a teacher, in operations of an image."""
        return run.plan.config.optim.epochs * self.preparer.check(run.plan.config)["gmacs"]

    def _lacks_teacher(self, arm: str) -> bool:
        """Whether the teacher of an arm's trials has not finished; without an arm, whether any teacher has not."""
        missing = {run.plan.key for run in self.teachers if not run.finished}
        needs = {run.plan.needs for run in self.state.runs if run.plan.role == "arm" and run.plan.arm == arm}
        return bool(missing & needs if arm else missing)

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
        untaught = {run.plan.key: run for run in self.teachers if not run.finished}
        todo = []
        for run in self.todo(runs):
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
            callbacks = RunCallbacks(queue.jobs, self.ledger, mirror, view, ended=claims.give_back)
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

        def cohorts(jobs: Sequence[Job]) -> list[list[Job]]:
            return self._cohorts(jobs, slots)

        slots = self.at_once.get(shape_of(spec_of(self.spec, "trial", "")), slots)
        with make_view() as view, Claims(self.study.name, self.store, self.ledger) as claims:
            search = SearchDriver(study, self.preparer, self.ledger, cohorts, claims)
            view.progress.slots = slots
            callbacks = RunCallbacks(search.jobs, self.ledger, mirror, view, search.waits, claims.give_back)
            search.callbacks = callbacks
            search.searcher.keep_to(self.share, view.held, footprint(spec_of(self.spec, "trial", "")))
            while search.searcher.ready():
                fit(self.study.name, self.spec, self.store, slots, callbacks, search.searcher, search.scheduler)
        self.refresh()
