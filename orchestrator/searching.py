"""Searching: one search of a study, driven: proposals become jobs, trials end or are stopped, the ledger remembers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ablations.plan import search_identity, trial_run
from ablations.study import Study
from orchestrator.jobs import Job, Preparer
from orchestrator.ledger import Ledger
from orchestrator.search import Proposal, StudySearcher, proposals
from orchestrator.stopping import Halving
from orchestrator.store import Store
from orchestrator.watch import ending
from trainer.config import parse
from trainer.record import read_epochs


class Searching:
    """A search of a study as Tune needs it: `searcher` proposes, `scheduler` stops, `jobs` fills as it goes."""

    def __init__(self, study: Study, preparer: Preparer, teachers: Mapping[str, Job], ledger: Ledger) -> None:
        assert study.search is not None
        self.study = study
        self.search = study.search
        self.preparer = preparer
        self.teachers = teachers
        self.ledger = ledger
        self.store: Store = preparer.store
        self.epochs = parse(study.base).optim.epochs
        self.jobs: dict[str, Job] = {}
        self.training: set[str] = set()
        history = self.history()
        self.scheduler: Halving | None = None
        if self.search.stop == "asha":
            earlier = [self.store.run_dir(run_id) for run_id, _ in history]
            self.scheduler = Halving(self.search, self.epochs, earlier)
            self._stop_overdue(history, self.scheduler)
            history = self.history()
        self.known = len(history)
        self.searcher = StudySearcher(study, history, self._begin, self._ended)

    def history(self) -> list[Proposal]:
        """The proposals so far, as the ledger has them."""
        return proposals(self.study, self.ledger.events())

    def _begin(self, number: int, values: dict[str, Any]) -> dict[str, Any] | None:
        """The settings of a proposal's trial, recorded; None while the same run trains. Raises UserError where it is
        infeasible."""
        job = self._proposed(number, values)
        if job.run_id in self.training:
            return None
        if number >= self.known:
            identity = search_identity(self.study)
            self.ledger.append(job.event("trial", search=identity, number=number, values=values))
        self.jobs[job.run_id] = job
        self.training.add(job.run_id)
        return job.settings(self.preparer.spec, self.store)

    def _ended(self, run_id: str, error: bool) -> tuple[str, dict[str, float]]:
        self.training.discard(run_id)
        end = ending(self.store.run_dir(run_id), "its process died" if error else "")
        return end.status, end.facts.get("last", {})

    def _proposed(self, number: int, values: dict[str, Any]) -> Job:
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
