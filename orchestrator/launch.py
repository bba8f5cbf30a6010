"""Study plus cluster: check every run, start what is missing under Ray Tune, record what came out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.plan import expand, search_identity, trial_run
from ablations.study import Study
from cluster.spec import ClusterSpec, Machine, concurrency, concurrency_on
from orchestrator.jobs import Job, Preparer
from orchestrator.ledger import Ledger
from orchestrator.mirror import Mirror
from orchestrator.progress import Lines, Live
from orchestrator.store import Store
from trainer.config import located, parse
from trainer.record import read_epochs

if TYPE_CHECKING:
    from orchestrator.search import Proposal
    from orchestrator.stopping import Halving

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

    def trials_left(self) -> int:
        """Trials that a search still has to make; 0 for a study with arms."""
        if self.study.search is None:
            return 0
        from orchestrator.search import proposals

        history = proposals(self.study, self.ledger.events())
        return max(0, self.study.search.trials - sum(trial.state != "running" for _, trial in history))

    def run(self, mirror: Mirror, make_view: MakeView) -> None:
        """Run what is missing, teachers first. The caller holds the store's lease."""
        jobs = [*self.teachers.values(), *self.arms]
        for job in jobs:
            if self.ledger.finished(job.run_id):
                self._reuse(job, mirror)
        phases = [phase for phase in (list(self.teachers.values()), self.arms) if self.missing(phase)]
        if phases or self.trials_left():
            self._run_phases(phases, mirror, make_view)

    def _reuse(self, job: Job, mirror: Mirror) -> None:
        known = self.ledger.outcomes()[job.run_id]
        if all(member.study != self.study.name or member.arm != job.run.arm for member in known.members):
            self.ledger.append(job.event("reused"))
        mirror.job(job, "finished")

    def _run_phases(self, phases: Sequence[Sequence[Job]], mirror: Mirror, make_view: MakeView) -> None:
        from orchestrator.session import session

        with session(self.spec, self.store) as machines:
            slots = self.slots(machines)
            for phase in phases:
                todo = self.missing(phase)
                untaught = {job.run.key: job for job in self.missing(list(self.teachers.values()))}
                for job in [job for job in todo if job.run.needs in untaught]:
                    todo.remove(job)
                    self._without_teacher(job, untaught[job.run.needs or ""], mirror)
                if todo:
                    with make_view(len(todo), sum(job.epochs for job in todo)) as view:
                        self._tune(todo, slots, mirror, view)
            if self.trials_left() and not self.missing(list(self.teachers.values())):
                self._search(slots, mirror, make_view)

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

    def _search(self, slots: int, mirror: Mirror, make_view: MakeView) -> None:
        from orchestrator.search import StudySearcher, proposals
        from orchestrator.stopping import Halving
        from orchestrator.watch import Watch, ending

        search = self.study.search
        assert search is not None
        epochs = parse(self.study.base).optim.epochs
        history = proposals(self.study, self.ledger.events())
        scheduler = None
        if search.stop == "asha":
            scheduler = Halving(search, epochs, [self.store.run_dir(run_id) for run_id, _ in history])
            self._stop_overdue(history, scheduler)
            history = proposals(self.study, self.ledger.events())
        left = self.trials_left()
        jobs: dict[str, Job] = {}
        training: set[str] = set()

        def begin(number: int, values: dict[str, Any]) -> dict[str, Any] | None:
            job = self._proposed(number, values)
            if job.run_id in training:
                return None
            if number >= len(history):
                self.ledger.append(job.event("trial", search=search_identity(self.study), number=number, values=values))
            jobs[job.run_id] = job
            training.add(job.run_id)
            return job.settings(self.spec, self.store)

        def ended(run_id: str, error: bool) -> tuple[str, dict[str, float]]:
            training.discard(run_id)
            end = ending(self.store.run_dir(run_id), "its process died" if error else "")
            return end.status, end.facts.get("last", {})

        searcher = StudySearcher(self.study, history, begin, ended)
        with make_view(left, left * epochs) as view:
            watch = Watch(jobs, self.ledger, mirror, view)
            self._fit({}, slots, watch, search_alg=searcher, scheduler=scheduler, num_samples=left)

    def _proposed(self, number: int, values: dict[str, Any]) -> Job:
        """The job of a search's proposal. Raises UserError where it is infeasible."""
        run = trial_run(self.study, number, values)
        self.preparer.check(run.config)
        return self.preparer.job(run, self.teachers)

    def _stop_overdue(self, history: Sequence[Proposal], scheduler: Halving) -> None:
        """Record as stopped the trials that a kill took at a rung which they would not have passed."""
        for run_id, trial in history:
            epochs = read_epochs(self.store.run_dir(run_id)) if trial.state == "running" else []
            if epochs and not scheduler.passes(run_id, epochs[-1]):
                job = self._proposed(trial.number, trial.values)
                self.ledger.append(job.event("stopped", last=epochs[-1]))

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
