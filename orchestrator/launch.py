"""Study plus cluster: check every run, start what is missing under Ray Tune, record what came out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ablations.statistics.seed_looks import due
from ablations.study.plan import Run
from ablations.study.schema import Study
from ablations.study.variant_search import searches
from cluster.spec import ClusterSpec, Machine, concurrency, concurrency_on
from orchestrator.prepare.jobs import Job, Preparer
from orchestrator.prepare.limits import Bounds, deployed
from orchestrator.prepare.search_space import refuse_infeasible
from orchestrator.search.resume import refuse_changed, retry, to_retry
from orchestrator.state.proposals import proposals
from orchestrator.state.runs import outcome
from orchestrator.state.tuned_arms import awaited, planned, tuning
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger, LedgerRun
from orchestrator.store.run_folder import reconcile
from orchestrator.terminal.live_view import Live
from orchestrator.terminal.log_lines import Lines
from orchestrator.tracking.mirror import Mirror
from trainer.config import located, parse

MakeView = Callable[[], Lines | Live]
"""A view of one phase, used as a context."""


class Launch:
    """One `transkd run` of a study: everything is checked in `prepare`, nothing is started before `run`."""

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
        self.ledger = Ledger(store.ledger)
        self.preparer = Preparer(study.name, spec, store, roots)
        self.runs = planned(study, self.ledger)
        self.teachers: dict[str, Job] = {}
        self.arms: list[Job] = []

    def prepare(self, say: Callable[[str], None]) -> None:
        """Refuse what cannot run, the cheapest reasons first: footprint, batches, folders, structures, labels."""
        if self.spec.address == "local":
            from orchestrator.prepare.machine import here

            concurrency(self.spec, *here(with_gpus=self.spec.gpus_per_worker > 0))
        configs = {run.arm: run.config for run in self.runs}
        if self.study.search is not None:
            configs["base"] = parse(self.study.base)
        for arm, config in configs.items():
            with located(f"{self.study.name}: {arm}"):
                config.optim.shares(self.spec.workers, self.spec.micro_batch)
        for config in {config.data.model_dump_json(): config for config in configs.values()}.values():
            with located(self.study.name):
                self.preparer.check_root(config)
        costs = {}
        for arm, config in configs.items():
            with located(f"{self.study.name}: {arm}"):
                costs[arm] = self.preparer.check(config)
        with located(self.study.name):
            arms = deployed(self.study, self.runs)
            bounds = Bounds(self.study.limits, self.spec, self.store, self.ledger)
            bounds.refuse(arms, costs)
        refuse_infeasible(self.study, self.preparer.check, bounds)
        say("structures checked; reading the data")
        for run in self.runs:
            if run.role == "teacher":
                self.teachers[run.key] = self.preparer.job(run, self.teachers)
        for search in self.searches:
            refuse_changed(search, self.ledger, self.preparer, self.teachers)
        self._take_up(self.runs)

    def _take_up(self, runs: Sequence[Run]) -> None:
        """Make the jobs of the arms' runs, but for those that await a search."""
        self.runs = list(runs)
        self.arms = [self.preparer.job(run, self.teachers) for run in runs if run.role == "arm" and not run.awaits]

    def missing(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs that have not finished, in this study or another."""
        distinct = {job.run_id: job for job in reversed(jobs)}
        return [job for job in reversed(distinct.values()) if self.ledger.finished(job.run_id) is None]

    def todo(self, jobs: Sequence[Job]) -> list[Job]:
        """The missing jobs, but for those that can only fail again."""
        runs = self.ledger.outcomes()
        return [job for job in self.missing(jobs) if not self.given_up(job.run_id, job.run, runs)]

    def given_up(self, run_id: str, of: Run, runs: Mapping[str, LedgerRun]) -> bool:
        """Whether a run failed of what its id stands for: a loss left the finite numbers, its own or its teacher's.

        Other causes may have been mended: code, files, machines. With `retry_failed` this one is tried again too.
        """
        run = runs.get(run_id)
        if self.retry_failed or run is None or run.status != "failed":
            return False
        if run.cause == "teacher" and (teacher := self.teachers.get(of.needs or "")) is not None:
            return self.given_up(teacher.run_id, teacher.run, runs)
        return run.cause == "nan"

    @property
    def searches(self) -> list[Study]:
        """The searches that come before the arms."""
        return list(searches(self.study).values())

    def unfinished(self) -> dict[str, str]:
        """Label -> reason, of the runs that have not finished, trials aside: their tables say how they ended."""
        runs = self.ledger.outcomes()
        jobs = self.missing([*self.teachers.values(), *self.due()])
        found = {job.label: runs[job.run_id].why if job.run_id in runs else "not started" for job in jobs}
        reasons = awaited(self._stand(), tuning(self.study, self.ledger))
        return found | {f"{run.arm} seed {run.seed}": reasons[run.key].reason for run in self._stand() if run.awaits}

    def due(self) -> list[Job]:
        """The arms' runs that are to be done now; asked again whenever they have ended."""
        now = {run.key for run in self._stand()}
        return [job for job in self.arms if job.run.key in now]

    def _stand(self) -> list[Run]:
        """The runs that are to stand by now: all, but for seeds of later looks."""
        if not self.study.looks:
            return self.runs
        runs = self.ledger.outcomes()
        outcomes = {job.run.key: outcome(runs[job.run_id]) for job in self.arms if job.run_id in runs}
        outcomes |= awaited(self.runs, tuning(self.study, self.ledger))
        return due(self.study, self.runs, outcomes)

    def trials_left(self, study: Study) -> int:
        """Trials that a search still has to make."""
        assert study.search is not None
        history = proposals(study, self.ledger)[: study.search.trials]
        ended = sum(trial.state != "running" for _, trial in history)
        return study.search.trials - ended + len(self._to_retry(study))

    def _to_retry(self, study: Study) -> list[int]:
        runs = self.ledger.outcomes()
        return to_retry(study, self.ledger, lambda run_id, run: self.given_up(run_id, run, runs))

    def total(self) -> int:
        """Runs and trials in all, as far as the looks have come."""
        return len(self._stand()) + sum(search.search.trials for search in self.searches if search.search)

    def left(self) -> int:
        """Runs and trials still to do."""
        trials = {arm: self.trials_left(search) for arm, search in searches(self.study).items()}
        to_come = sum(bool(run.awaits and trials[run.arm]) for run in self._stand())
        return len(self.todo([*self.teachers.values(), *self.due()])) + to_come + sum(trials.values())

    def run(self, mirror: Mirror, make_view: MakeView) -> None:
        """Run what is missing: teachers, then searches, then arms. The caller holds the store's lease."""
        reconcile(self.ledger, self.store)
        for search in self.searches:
            retry(search, self.ledger, self._to_retry(search))
        self._reuse([*self.teachers.values(), *self.arms], mirror)
        if self.left():
            self._run(mirror, make_view)
        mirror.ended(self.study)  # what ended while no driver watched, trials too

    def _reuse(self, jobs: Sequence[Job], mirror: Mirror) -> None:
        """Take the jobs that have finished, or can only fail, in this study or another, into this one."""
        runs = self.ledger.outcomes()
        for job in jobs:
            known = runs.get(job.run_id)
            if known is None or not (known.status == "finished" or self.given_up(job.run_id, job.run, runs)):
                continue
            if all(member.study != self.study.name or member.arm != job.run.arm for member in known.members):
                self.ledger.append(job.event("reused"))
            mirror.job(job)

    def _run(self, mirror: Mirror, make_view: MakeView) -> None:
        from orchestrator.running.ray_session import session

        with session(self.spec, self.store) as machines:
            slots = self.slots(machines)
            self._train(list(self.teachers.values()), slots, mirror, make_view)
            for arm, search in searches(self.study).items():
                if self.trials_left(search) and not self._untaught(arm):
                    self._search(search, slots, mirror, make_view)
            before = {job.run_id for job in self.arms}
            self._take_up(planned(self.study, self.ledger))
            self._reuse([job for job in self.arms if job.run_id not in before], mirror)
            tried: set[str] = set()
            while todo := [job for job in self.todo(self.due()) if job.run_id not in tried]:
                tried |= {job.run_id for job in todo}
                self._train(todo, slots, mirror, make_view)

    def _untaught(self, arm: str) -> bool:
        """Whether the teacher of an arm's trials has not finished; any teacher, where trials are of no arm."""
        missing = {job.run.key for job in self.missing(list(self.teachers.values()))}
        needs = {run.needs for run in self.runs if run.role == "arm" and run.arm == arm}
        return bool(missing & needs if arm else missing)

    def _train(self, jobs: Sequence[Job], slots: int, mirror: Mirror, make_view: MakeView) -> None:
        """Train those that have not finished, but for pupils of a teacher that failed."""
        todo = self.todo(jobs)
        untaught = {job.run.key: job for job in self.missing(list(self.teachers.values()))}
        for job in [job for job in todo if job.run.needs in untaught]:
            todo.remove(job)
            self._without_teacher(job, untaught[job.run.needs or ""], mirror)
        if todo:
            with make_view() as view:
                self._tune(todo, slots, mirror, view)

    def slots(self, machines: Sequence[Machine]) -> int:
        """Runs at once. Raises SpecError where not one fits."""
        if self.spec.scales:
            return concurrency(self.spec, sum(m.cpus for m in machines), sum(m.gpus for m in machines))
        return concurrency_on(self.spec, machines)

    def _without_teacher(self, job: Job, teacher: Job, mirror: Mirror) -> None:
        why = self.ledger.outcomes()[teacher.run_id].reason
        reason = f"{teacher.label} did not finish" + (f": {why}" if why else "")
        self.ledger.append(job.event("failed", reason=reason, cause="teacher"))
        mirror.job(job)

    def _tune(self, jobs: Sequence[Job], slots: int, mirror: Mirror, view: Lines | Live) -> None:
        from ray import tune

        from orchestrator.running.callbacks import Watch
        from orchestrator.running.tuner import fit

        settings = [job.settings(self.spec, self.store) for job in jobs]
        watch = Watch({job.run_id: job for job in jobs}, self.ledger, mirror, view)
        fit(self.study.name, self.spec, self.store, {"job": tune.grid_search(settings)}, slots, watch)

    def _search(self, study: Study, slots: int, mirror: Mirror, make_view: MakeView) -> None:
        from orchestrator.running.callbacks import Watch
        from orchestrator.running.tuner import fit
        from orchestrator.search.driver import Searching

        searching = Searching(study, self.preparer, self.teachers, self.ledger)
        with make_view() as view:
            watch = searching.watch = Watch(searching.jobs, self.ledger, mirror, view, searching.waits)
            # the searcher says when it has made all trials: one may be started more than once, another never
            options = {"search_alg": searching.searcher, "scheduler": searching.scheduler, "num_samples": -1}
            fit(self.study.name, self.spec, self.store, {}, slots, watch, **options)
