"""Launch: one `transkd run` of a study. Check every run, start the missing ones under Ray Tune, record the results."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.study.schema import Study
from cluster.spec import ClusterSpec
from orchestrator.prepare.cohort_costs import in_words
from orchestrator.prepare.jobs import Job, Preparer
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
from orchestrator.store.run_folder import reconcile, record_end
from orchestrator.tracking.mirror import Mirror
from trainer.config import Sources, TrainConfig, counted

if TYPE_CHECKING:
    from orchestrator.under_tune import MakeView, UnderTune


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
        self.sources: Sources | None = None
        self.state = StudyState(study, self.ledger, retry_failed=retry_failed)
        self.say: Callable[[str], None] = lambda text: None
        self.close: Callable[[], object] = lambda: None
        """Writes the report and ends tracking, where Ray was lost and the thread of `run` is stuck in it."""

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
        from orchestrator.running.ray_session import session
        from orchestrator.running.shares.share import shared
        from orchestrator.under_tune import UnderTune

        with contextlib.ExitStack() as held:
            machines = held.enter_context(session(self.spec, self.store, self.say, self._close))
            tune = UnderTune(
                self.preparer, self.ledger, self.state, machines, mirror, make_view, retry_failed=self.retry_failed
            )
            tune.share = held.enter_context(shared(self.spec, tune.trials_at_once, self.say))
            self.say(f"Ray is there, with room for {counted(tune.slots, 'run')} at once; waiting for its first process")
            tried = self._train_teachers(tune)
            for search in self.state.searches:
                if trials_left(self.state, search) and not lacks_teacher(self.state, search.arm):
                    tune.search(search.study, self._planned)
                    self.refresh()
            before = {run.run_id for run in self.state.runs}
            self.refresh()
            self._reuse([run for run in self.state.runs if run.run_id not in before], mirror)
            while todo := [run for run in to_train(self.state, arms_due(self.state)) if run.run_id not in tried]:
                # a look that is reached only now may need a teacher whose checkpoint is gone
                self._train(tune, [run for run in self.state.teachers.values() if run.lost])
                tried |= {run.run_id for run in todo}
                self._train(tune, todo)

    def _train_teachers(self, tune: UnderTune) -> set[str]:
        """Train the teachers, and beside them the students that need none or whose own has finished; returns the ids.

        The students of a study with a search wait for its end: it may set their values.
        """
        teachers = list(self.state.teachers.values())
        tried = {run.run_id for run in teachers}

        def taught() -> list[StudyRun]:
            if self.state.searches or not any(run.finished for run in self.state.teachers.values()):
                found = beside_teachers(self.state, tune.slots, self._cost)
            else:
                found = with_teacher(self.state, to_train(self.state, arms_due(self.state)))
            new = [run for run in found if run.run_id not in tried]
            tried.update(run.run_id for run in new)
            return new

        self._train(tune, teachers, taught)
        return tried

    def _cost(self, run: StudyRun) -> float:
        """The cost of a run without a teacher, in operations of an image."""
        return run.plan.config.optim.epochs * self.preparer.check(run.plan.config)["gmacs"]

    def _train(self, tune: UnderTune, runs: Sequence[StudyRun], follow: Callable[[], list[StudyRun]] = list) -> None:
        """Train the runs that have not finished; beside them those of `follow`, which is asked now and after each
        teacher. Students whose teacher did not finish are recorded as failed."""
        untaught = missing_teachers(self.state)
        todo = []
        for run in to_train(self.state, runs):
            if run.plan.needs in untaught:
                self._without_teacher(run, untaught[run.plan.needs], tune.mirror)
            else:
                todo.append(self.job(run))
        self.refresh()

        def more() -> list[list[Job]]:
            self.refresh()
            return self._cohorts(tune, [self.job(run) for run in follow()])

        if todo:
            tune.train([*self._cohorts(tune, todo), *more()], more)
        self.refresh()

    def _cohorts(self, tune: UnderTune, jobs: Sequence[Job]) -> list[list[Job]]:
        """Which jobs train together; it is said."""
        cohorts = tune.cohorts(jobs, self._planned())
        if said := in_words([len(cohort) for cohort in cohorts]):
            self.say(said)
        return cohorts

    def _planned(self) -> dict[str, TrainConfig]:
        """Key -> config, of all runs of the study."""
        return {run.plan.key: run.plan.config for run in self.state.runs}

    def _without_teacher(self, run: StudyRun, teacher: StudyRun, mirror: Mirror) -> None:
        why = teacher.run.reason
        reason = f"{teacher.label} did not finish" + (f": {why}" if why else "")
        claim = self.store.leases.claim(run.run_id, self.study.name)
        if claim is None:  # another driver trains it: it has the teacher
            return
        self.ledger.append(self.job(run).event("failed", reason=reason, cause="teacher"))
        claim.give_back()
        mirror.send(run.run_id, run.plan.arm, run.plan.seed, run.plan.role)
