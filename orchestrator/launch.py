"""Study plus cluster: check every run, start what is missing under Ray Tune, record what came out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablations.plan import expand
from ablations.study import Study
from cluster.spec import ClusterSpec, Machine, concurrency, concurrency_on
from orchestrator.jobs import Job, Preparer
from orchestrator.ledger import Ledger
from orchestrator.mirror import Mirror
from orchestrator.progress import Lines, Live
from orchestrator.store import Store
from trainer.config import located, parse

MakeView = Callable[[int, int], Lines | Live]
"""(runs to do, their epochs) -> a view, used as a context."""


class Launch:
    """One `transkd run` of a study: everything is checked in `prepare`, nothing is started before `run`."""

    def __init__(self, study: Study, spec: ClusterSpec, store: Store, roots: Mapping[str, Path]) -> None:
        self.study = study
        self.spec = spec
        self.store = store
        self.ledger = Ledger(store.ledger)
        self.preparer = Preparer(study.name, spec, store, roots)
        self.runs = expand(study)
        self.teachers: dict[str, Job] = {}
        self.arms: list[Job] = []

    def prepare(self, say: Callable[[str], None]) -> None:
        """Refuse what cannot run, the cheapest reasons first: footprint, batches, folders, structures, labels."""
        if self.spec.address == "local":
            from orchestrator.session import here

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
        for arm, config in configs.items():
            with located(f"{self.study.name}: {arm}"):
                self.preparer.check(config)
        say("structures checked; reading the data")
        for run in self.runs:
            job = self.preparer.job(run, self.teachers)
            if run.role == "teacher":
                self.teachers[run.key] = job
            else:
                self.arms.append(job)

    def missing(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs that have not finished, in this study or another."""
        distinct = {job.run_id: job for job in reversed(jobs)}
        return [job for job in reversed(distinct.values()) if self.ledger.finished(job.run_id) is None]

    @property
    def searches(self) -> list[Study]:
        """The searches that come before the arms."""
        return [self.study] if self.study.search is not None else []

    def due(self) -> list[Job]:
        """The arms' runs that are to be done now; asked again whenever they have ended."""
        return self.arms

    def trials_left(self, study: Study) -> int:
        """Trials that a search still has to make."""
        from orchestrator.search import proposals

        assert study.search is not None
        history = proposals(study, self.ledger.events())
        return max(0, study.search.trials - sum(trial.state != "running" for _, trial in history))

    def left(self) -> int:
        """Runs and trials still to do."""
        return len(self.missing([*self.teachers.values(), *self.due()])) + sum(map(self.trials_left, self.searches))

    def run(self, mirror: Mirror, make_view: MakeView) -> None:
        """Run what is missing: teachers, then searches, then arms. The caller holds the store's lease."""
        for job in [*self.teachers.values(), *self.arms]:
            if self.ledger.finished(job.run_id):
                self._reuse(job, mirror)
        if self.left():
            self._run(mirror, make_view)

    def _reuse(self, job: Job, mirror: Mirror) -> None:
        known = self.ledger.outcomes()[job.run_id]
        if all(member.study != self.study.name or member.arm != job.run.arm for member in known.members):
            self.ledger.append(job.event("reused"))
        mirror.job(job, "finished")

    def _run(self, mirror: Mirror, make_view: MakeView) -> None:
        from orchestrator.session import session

        with session(self.spec, self.store) as machines:
            slots = self.slots(machines)
            self._train(list(self.teachers.values()), slots, mirror, make_view)
            for search in self.searches:
                if self.trials_left(search) and not self.missing(list(self.teachers.values())):
                    self._search(search, slots, mirror, make_view)
            tried: set[str] = set()
            while todo := [job for job in self.missing(self.due()) if job.run_id not in tried]:
                tried |= {job.run_id for job in todo}
                self._train(todo, slots, mirror, make_view)

    def _train(self, jobs: Sequence[Job], slots: int, mirror: Mirror, make_view: MakeView) -> None:
        """Train those that have not finished, but for pupils of a teacher that failed."""
        todo = self.missing(jobs)
        untaught = {job.run.key: job for job in self.missing(list(self.teachers.values()))}
        for job in [job for job in todo if job.run.needs in untaught]:
            todo.remove(job)
            self._without_teacher(job, untaught[job.run.needs or ""], mirror)
        if todo:
            with make_view(len(todo), sum(job.epochs for job in todo)) as view:
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
        mirror.job(job, "failed", reason)

    def _tune(
        self,
        jobs: Sequence[Job],
        slots: int,
        mirror: Mirror,
        view: Lines | Live,
    ) -> None:
        from ray import tune

        from orchestrator.watch import Watch

        settings = [job.settings(self.spec, self.store) for job in jobs]
        watch = Watch({job.run_id: job for job in jobs}, self.ledger, mirror, view)
        self._fit({"job": tune.grid_search(settings)}, slots, watch)

    def _search(self, study: Study, slots: int, mirror: Mirror, make_view: MakeView) -> None:
        from orchestrator.searching import Searching
        from orchestrator.watch import Watch

        searching = Searching(study, self.preparer, self.teachers, self.ledger)
        left = self.trials_left(study)
        with make_view(left, left * searching.epochs) as view:
            watch = Watch(searching.jobs, self.ledger, mirror, view)
            options = {"search_alg": searching.searcher, "scheduler": searching.scheduler, "num_samples": left}
            self._fit({}, slots, watch, **options)

    def _fit(self, space: dict[str, Any], slots: int, watch: Any, **options: Any) -> None:
        from ray import tune

        from orchestrator.trial import bundle, trial
        from orchestrator.watch import Silence

        resources: dict[str, float] = {"CPU": self.spec.cpus_per_worker}
        if self.spec.gpus_per_worker:
            resources["GPU"] = self.spec.gpus_per_worker
        tune.Tuner(
            tune.with_resources(trial, bundle(self.spec.workers, resources)),
            param_space=space,
            tune_config=tune.TuneConfig(
                max_concurrent_trials=slots,
                reuse_actors=self.spec.workers == 1,
                trial_dirname_creator=_folder,
                trial_name_creator=_folder,
                **options,
            ),
            run_config=tune.RunConfig(
                name=self.study.name,
                storage_path=str(self.store.ray_dir),
                verbose=0,
                callbacks=[watch, Silence()],
                # only a process that died is started again; errors of ours end the run and are recorded
                failure_config=tune.FailureConfig(max_failures=self.spec.max_failures),
            ),
        ).fit()


def _folder(trial: Any) -> str:
    """A trial's folder is called as its run: parameters in a name make paths of 300 characters."""
    return str(trial.config["job"]["run_id"])
