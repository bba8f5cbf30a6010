"""Searches on a real store, whose trials' folders are written as the trainer writes them, without its work."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ablations.study.plan import expand
from ablations.study.schema import read
from cluster.spec import ClusterSpec
from orchestrator.launch import Launch
from orchestrator.prepare.jobs import Preparer
from orchestrator.running.callbacks import RunCallbacks
from orchestrator.search.driver import SearchDriver
from orchestrator.state.proposals import proposals
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger
from trainer.files.run_folder import append_epoch, clear_failure, read_epochs, write_failure, write_result


class Silent:
    """Neither tracking nor a view."""

    def __getattr__(self, name):
        return lambda *what: None


class Bench:
    """Searches on one store. `failing` holds the causes that the trials to come fail of, one each."""

    STUDY = """
name: NAME
base:
  data: {name: scenes, size: [64, 128], select: 0.25, options: {train: 16, val: 8, size: [64, 128]}}
  student: {name: segformer_tiny}
  teacher: {name: segformer_mini, train: {epochs: 1}}
  optim: {lr: 3.0e-3, epochs: 3, global_batch: 4}
  distill: {csf: {}, pea: {}}
search:
  SEARCH
"""
    RANGES = "space: {distill.csf.weight: {log: [0.1, 1.0]}, distill.pea.weight: {log: [0.1, 1.0]}}"
    CHOICES = "space: {distill.csf.weight: {choice: [0.5, 1.0]}, distill.pea.weight: {choice: [0.5, 1.0]}}"

    def __init__(self, root):
        self.store = Store(root)
        self.ledger = Ledger(self.store.ledger)
        self.preparer = Preparer("bench", ClusterSpec(), self.store, {})
        self.failing = []

    def text(self, search, name="sought"):
        return self.STUDY.replace("NAME", name).replace("SEARCH", search.replace(", space", ",\n  space"))

    def study(self, search, name="sought"):
        return read(self.text(search, name), "study.yaml")

    def search(self, study):
        preparer = Preparer(study.name, self.preparer.spec, self.store, {})
        preparer.teachers = {run.key: preparer.job(run).run_id for run in expand(study)}
        return SearchDriver(study, preparer, self.ledger)

    def run(self, study, trials=100, until=99, view=None):
        """Run trials one after the other; a trial is killed after `until` epochs. The run ids that trained."""
        search, trained = self.search(study), []
        callbacks = search.callbacks = RunCallbacks(search.jobs, self.ledger, Silent(), view or Silent(), search.waits)
        while len(trained) < trials and isinstance(config := search.searcher.suggest(f"t{len(trained)}"), dict):
            trial = SimpleNamespace(config=config)
            job = search.jobs[config["jobs"][0]["run_id"]]
            trained.append(job.run_id)
            callbacks.on_trial_start(0, [trial], trial)
            if not self.train(search, job, until):
                break
            callbacks.on_trial_complete(0, [trial], trial)
            search.searcher.on_trial_complete(f"t{len(trained) - 1}")
        return trained

    def train(self, search, job, until):
        out = self.store.run_dir(job.run_id)
        clear_failure(out)
        if self.failing:
            write_failure(out, self.failing.pop(0), "as a test would have it")
            return True
        out.mkdir(parents=True, exist_ok=True)
        metrics, goes_on = (read_epochs(out) or [{}])[-1], True
        weights = [job.run.config.distill[name].weight for name in ("csf", "pea")]
        for epoch in range(len(read_epochs(out)) + 1, 4):
            metrics = {"epoch": float(epoch), "select/miou": epoch - sum(weights), "val/miou": epoch - weights[0]}
            append_epoch(out, metrics)
            goes_on = search.scheduler is None or search.goes_on(job.run_id, metrics)
            if epoch == until:
                return False
            self.ledger.append_epochs(job.run_id, [metrics])
            if not goes_on:
                return True
        result = {"run_id": job.run_id, "last": metrics, "best": metrics, "complexity": {}, "environment": {}}
        write_result(out, {**result, "seconds": 1.0})
        return True

    def launch(self, study, **options):
        """A launch as `transkd run` prepares it."""
        launch = Launch(study, self.preparer.spec, self.store, {}, **options)
        launch.prepare(lambda text: None)
        return launch

    def start(self, study, mirror=None, **options):
        """`transkd run`, but for Ray and the teacher: the run ids that trained."""
        launch, trained = self.launch(study, **options), []
        launch._run = lambda mirror, make_view: trained.extend(self.run(study))
        launch.run(mirror or Silent(), Silent())
        return trained

    def trials(self, study):
        return [(t.number, t.values, t.state, t.epochs) for _, t in proposals(study, self.ledger)]

    def states(self, study):
        return [trial.state for _, trial in proposals(study, self.ledger)]


@pytest.fixture
def make_bench(tmp_path_factory, cached):
    """make_bench(): one on an empty store."""

    def make():
        return Bench(cached(tmp_path_factory.mktemp("bench") / "store"))

    return make


@pytest.fixture
def bench(make_bench):
    """The only one of a test."""
    return make_bench()
