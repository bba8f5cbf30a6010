"""What the driver itself does for runs and for trials, without Ray: the calls that Tune makes, on real ledgers.

Run: python benchmarks/driver_cost.py watch|random|tpe RUNS. Prints one line of JSON: seconds and CPU seconds, by part.
"""

from __future__ import annotations

import io
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import yaml
from ray.tune.schedulers import TrialScheduler
from rich.console import Console
from scale import EPOCHS, SMALL, grid
from scale_store import facts, fill, metrics

from ablations.study.plan import expand
from ablations.study.schema import Study, load
from cluster.spec import ClusterSpec
from orchestrator.prepare.jobs import Job, Preparer
from orchestrator.running.callbacks import RunCallbacks
from orchestrator.running.shared_searcher import together
from orchestrator.search.driver import SearchDriver
from orchestrator.state.study_state import StudyState
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger
from orchestrator.store.run_folder import ending
from orchestrator.terminal.log_lines import Lines, StudyProgress
from trainer.config import parse
from trainer.files.run_folder import append_epoch, write_result

DRIVEN = 100
"""Runs that are driven to their end, beside all others, which have finished."""


class Clock:
    """Adds up the time spent within it, of the wall and of this process's CPU."""

    def __init__(self) -> None:
        self.taken = (0.0, 0.0)
        self._depth = 0

    def __enter__(self) -> None:
        self._depth += 1
        if self._depth == 1:
            self._since = (time.perf_counter(), time.process_time())

    def __exit__(self, *error: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            now = (time.perf_counter(), time.process_time())
            self.taken = tuple(t + n - s for t, n, s in zip(self.taken, now, self._since, strict=True))

    def of(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, clocked."""

        def clocked(*given: Any, **named: Any) -> Any:
            with self:
                return call(*given, **named)

        return clocked


class Silent:
    """No tracking."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *given: None


def written(study: dict[str, Any], store: Store) -> Path:
    """The study as a file."""
    path = store.root / "study.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return path


def result(run_id: str, last: dict[str, float]) -> dict[str, Any]:
    """What the trainer writes when a run has finished."""
    return {"run_id": run_id, **{name: fact for name, fact in facts(run_id, last).items() if name != "artifacts"}}


def watch(store: Store, runs: int) -> dict[str, Clock]:
    """The last hundred runs of a study, from their start to their end, with the view of a job's log."""
    file = written(grid(runs), store)
    left = fill(store, file, DRIVEN)
    study, spec = load(str(file)), ClusterSpec()
    preparer = Preparer(study.name, spec, store, {})
    preparer.teachers = {run.key: preparer.job(run).run_id for run in expand(study)[:1]}
    jobs = {job.run_id: job for job in map(preparer.job, left)}
    ledger = Ledger(store.ledger)
    view = Lines(Console(file=io.StringIO()), StudyProgress(StudyState(study, ledger)))
    watching = RunCallbacks(jobs, ledger, Silent(), view)  # type: ignore[arg-type]
    clock, rng = Clock(), random.Random(0)
    for job in jobs.values():
        trial, out = SimpleNamespace(config=together([job.settings(spec, store)])), job.place.out_dir
        out.mkdir(parents=True)
        with clock:
            watching.on_trial_start(0, [], trial)
        for epoch in range(1, EPOCHS + 1):
            last = metrics(rng, epoch, 0.0)
            append_epoch(out, last)
            with clock:
                watching.on_trial_result(
                    0, [], trial, {**last, "training_iteration": epoch, "trial_id": "a", "run_id": job.run_id}
                )
        write_result(out, result(job.run_id, last))
        with clock:
            watching.on_trial_complete(0, [], trial)
    return {"": clock}


def sought(trials: int, sampler: str) -> dict[str, Any]:
    """A search with three ranges."""
    weights = {f"distill.{name}.weight": {"log": [0.01, 10.0]} for name in ("csf", "pea")}
    space = {"optim.lr": {"log": [1.0e-4, 1.0e-2]}, **weights}
    data = {**SMALL["data"], "select": 0.25, "options": {"train": 16, "val": 8, "size": [64, 128]}}
    search = {"trials": trials, "sampler": sampler, "stop": "asha", "space": space}
    return {"name": "sought", "base": {**SMALL, "data": data}, "search": search}


def search(store: Store, trials: int, sampler: str) -> dict[str, Clock]:
    """A search from its first proposal to its last, and a second driver that takes it up at its end."""
    study, ledger = load(str(written(sought(trials, sampler), store))), Ledger(store.ledger)
    all_, again, optunas, rng = Clock(), Clock(), _clocked_optuna(), random.Random(0)
    Preparer(study.name, ClusterSpec(), store, {}).check(parse(study.base))  # as `run` does before it searches
    with all_:
        search = _searching(study, ledger, store)
    while True:
        with all_:
            config = search.searcher.suggest("trial")
        if not isinstance(config, dict):
            break
        job = search.jobs[config["jobs"][0]["run_id"]]
        _train(search, job, SimpleNamespace(config=config), all_, rng)
        with all_:
            search.searcher.on_trial_complete("trial")
    with all_, again:
        _searching(study, ledger, store)
    return {"": all_, "by Optuna": optunas, "taken up again": again}


def _searching(study: Study, ledger: Ledger, store: Store) -> SearchDriver:
    preparer = Preparer(study.name, ClusterSpec(), store, {})
    preparer.teachers = {run.key: preparer.job(run).run_id for run in expand(study)}
    return SearchDriver(study, preparer, ledger)


def _train(search: SearchDriver, job: Job, trial: Any, clock: Clock, rng: random.Random) -> None:
    """What a run leaves in its folder and in the ledger; only the decision after every epoch is clocked."""
    assert search.scheduler is not None
    ledger, out, level = search.ledger, job.place.out_dir, rng.gauss(0, 5)
    ledger.append(job.event("started", config=job.run.config.model_dump(mode="json")))
    out.mkdir(parents=True)
    for epoch in range(1, EPOCHS + 1):
        last = metrics(rng, epoch, level)
        last["select/miou"] = last["val/miou"]
        append_epoch(out, last)
        with clock:
            decision = search.scheduler.on_trial_result(None, trial, {**last, "run_id": job.run_id})
        ledger.append({"event": "epoch", "run_id": job.run_id, "metrics": last})
        if decision == TrialScheduler.STOP:
            break
    else:
        write_result(out, result(job.run_id, last))
    end = ending(out, "")
    ledger.append(job.event(end.status, **end.facts))


def _clocked_optuna() -> Clock:
    clock = Clock()
    for owner, names in ((optuna.Study, "ask tell add_trials"), (optuna.Trial, "_suggest report")):
        for name in names.split():
            setattr(owner, name, clock.of(getattr(owner, name)))
    optuna.Trial.relative_params = property(clock.of(optuna.Trial.relative_params.fget))
    return clock


def main() -> None:
    """Measure and print."""
    what, runs = sys.argv[1], int(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        parts = watch(store, runs) if what == "watch" else search(store, runs, what)
    print(json.dumps({part: clock.taken for part, clock in parts.items()}))


if __name__ == "__main__":
    main()
