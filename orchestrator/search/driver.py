"""SearchDriver: one search of a study. It makes jobs of proposals, stops trials early, and records both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from ablations.study.early_stopping import Curve, passes_averages, passes_rung
from ablations.study.plan import search_identity, trial_run
from ablations.study.schema import Study
from ablations.study.trial import Trial
from cluster.spec import spec_of
from orchestrator.prepare.cohort_costs import apart
from orchestrator.prepare.jobs import Job, Preparer
from orchestrator.prepare.limits import LimitsCheck
from orchestrator.running.callbacks import RunCallbacks
from orchestrator.running.claims import Claims
from orchestrator.search.batch_searcher import BatchSearcher
from orchestrator.search.curves_seen import FinishedAverages, RungValues
from orchestrator.search.learn_from import find_trials_to_import
from orchestrator.search.scheduler import EarlyStopping
from orchestrator.search.searcher import RecordedProposal, StudySearcher
from orchestrator.state.proposals import INFRASTRUCTURE_CAUSES, Proposal, curve, imported_trials, proposals, to_train
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger
from orchestrator.store.run_folder import end_of
from trainer.config import UserError, parse

COSTS = ("params_m", "gmacs", "gmacs_paper")
"""Costs of a proposal's student that are known before it trains."""


class SearchDriver:
    """A search for Tune: `searcher` proposes trials, `scheduler` stops them, `jobs` grows with each proposal.

    `cohorts` says which trials of a deterministic search train together. In any other search a trial is proposed when a
    slot is free, from the results by then: there each trains alone. Without `claims` no other driver
    uses the store. `callbacks` is told of trials that end while no
    process runs them; set it before the search starts.
    """

    def __init__(
        self,
        study: Study,
        preparer: Preparer,
        ledger: Ledger,
        cohorts: Callable[[Sequence[Job]], list[list[Job]]] = apart,
        claims: Claims | None = None,
    ) -> None:
        assert study.search is not None
        self.study = study
        self.search = study.search
        self.preparer = preparer
        self.ledger = ledger
        self.store: Store = preparer.store
        self.identity = search_identity(study)
        self.epochs = parse(study.base).optim.epochs
        self.limits_check = LimitsCheck(study.limits, spec_of(preparer.spec, "arm", ""), preparer.store, ledger)
        self.jobs: dict[str, Job] = {}
        self.callbacks: RunCallbacks | None = None
        self.claims = claims
        self.known: dict[int, Proposal] = {}
        self.numbers: dict[str, list[int]] = {}
        """Run id -> numbers of the proposals that the run computes."""
        for proposal in self.history():
            self._know(proposal)
        self.rungs = RungValues(self.search, self.epochs)
        self.finished = FinishedAverages(self.search.metric)
        self._stop_overdue()
        history = self.history()
        for proposal in history:
            self._know(proposal)
        self.scheduler = EarlyStopping(self.goes_on) if self.search.stop != "none" else None
        given = (study, history, self._told(history), self._begin, self._ended, self._claim)
        self.cohorts = cohorts
        self._said: set[str] = set()
        self.searcher = (
            BatchSearcher(*given, judged=self._judged, cohorts=self._cohorts)
            if self.search.deterministic
            else StudySearcher(*given)
        )

    def history(self) -> list[Proposal]:
        """The proposals in the ledger so far."""
        return proposals(self.study, self.ledger)

    def _claim(self, run_ids: Sequence[str]) -> list[str] | None:
        """Claim runs; returns those that are to be trained: of those that another driver has finished, the end is
        recorded. None where another driver trains one of them."""
        if self.claims is None:
            return list(run_ids)
        assert self.callbacks is not None
        if not self.claims.take_all(run_ids):
            for run_id in set(run_ids) - self._said:
                if who := self.claims.other(run_id):
                    self._said.add(run_id)
                    self.callbacks.view.queued(self.jobs[run_id], f"trained by {who}")
            return None
        over = [run_id for run_id in run_ids if self.ledger.finished(run_id) is not None]
        for run_id in over:
            self.callbacks.over(self.jobs[run_id])
        return [run_id for run_id in run_ids if run_id not in over]

    def _may_record(self, run_id: str) -> bool:
        """Whether no other driver trains a run; then it is claimed."""
        return self.claims is None or self.claims.take(run_id)

    def _cohorts(self, run_ids: Sequence[str]) -> list[list[str]]:
        return [[job.run_id for job in cohort] for cohort in self.cohorts([self.jobs[run_id] for run_id in run_ids])]

    def waits(self, run_id: str) -> bool:
        """Whether a trial whose process has ended may continue: a deterministic search judges it with its batch."""
        return self.search.deterministic and end_of(self.ledger, self.store, run_id).status == "stopped"

    def goes_on(self, run_id: str, result: Mapping[str, Any]) -> bool:
        """Whether a trial continues after an epoch, compared with the other trials in the ledger."""
        epoch, value = int(result.get("epoch", 0)), result.get(self.search.metric)
        if value is None or epoch >= self.epochs:
            return True
        number = self.numbers[run_id][0]
        bracket = self.search.bracket(number)
        if self.search.stop == "asha":
            # most epochs are not rungs, and need no look at other trials
            if epoch not in self.rungs.of(bracket):
                return True
            return not self.search.deterministic and self._passes_rung(run_id, bracket, epoch, value)
        if self.search.stop == "median" and epoch >= self.search.min_epochs:
            return self._passes_median(run_id, number, bracket, {epoch: value})
        return True

    def _passes_rung(self, run_id: str, bracket: int, rung: int, value: float) -> bool:
        beside = self.rungs.at(bracket, rung, self.known.values(), self.ledger.outcomes(), but=run_id)
        return passes_rung(value, beside, self.search.eta)

    def _passes_median(self, run_id: str, number: int, bracket: int, now: Curve) -> bool:
        # a deterministic search compares with earlier batches only
        until = number - number % self.search.batch if self.search.deterministic else len(self.known)
        beside = [
            other
            for n, (other, trial) in self.known.items()
            if n < until and other != run_id and trial.state == "finished" and self.search.bracket(n) == bracket
        ]
        own = {**curve(self.ledger.run(run_id), self.search.metric), **now}
        (epoch,) = now
        return passes_averages(own, epoch, self.finished.at(epoch, beside, self.ledger.outcomes()))

    def _know(self, proposal: Proposal) -> None:
        number = proposal.trial.number
        self.known[number] = proposal
        if number not in (of_run := self.numbers.setdefault(proposal.run_id, [])):
            of_run.append(number)

    def _begin(self, trial: Trial) -> RecordedProposal:
        """Record a proposal if it is new, and make its job. Raises UserError where it is infeasible."""
        run = trial_run(self.study, trial.number, trial.values)
        if trial.number in self.known:
            # another proposal of the same config may have been retried, which ended this one too
            proposal = self.history()[trial.number]
            self._know(proposal)
            end = None if proposal.trial.state == "running" else proposal.trial
            return self._begun(self.preparer.job(run), end)
        facts = {
            "search": self.identity,
            "number": trial.number,
            "values": trial.values,
            "infeasible": trial.infeasible,
        }
        try:
            costs = self.preparer.check_trial(run.config)
            self.limits_check.refuse({run.arm: run.config}, {run.arm: costs})
            job = self.preparer.job(run)
        except UserError as error:
            if self.search.sampler != "grid":
                raise
            # a grid has no other value to propose: the point is recorded as failed
            refused = {"event": "failed", "reason": str(error)}
            self.ledger.append({"event": "trial", "study": self.study.name, **facts, "end": refused})
            hole = replace(trial, state="failed", reason=str(error))
            self._know(Proposal("", hole))
            self._say(Job(self.study.name, run, "", self.preparer.place(run.config)), hole)
            return RecordedProposal("", {}, hole)
        whole = replace(trial, costs={name: costs[name] for name in COSTS})
        end = self._known_end(whole, job.run_id)
        said = {} if end is None else {"end": {"event": end.state, "last": end.metrics, "reason": end.reason}}
        self.ledger.append(job.event("trial", **facts, costs=whole.costs, **said))
        self._know(Proposal(job.run_id, end or whole))
        return self._begun(job, end)

    def _begun(self, job: Job, end: Trial | None = None) -> RecordedProposal:
        self.jobs.setdefault(job.run_id, job)
        if end is not None:
            self._say(job, end)
        return RecordedProposal(job.run_id, job.settings(self.preparer.spec, self.store), end)

    def _say(self, job: Job, end: Trial) -> None:
        """Show the end of a proposal that had no trial of its own."""
        if self.callbacks is not None:
            self.callbacks.view.ended(job, end.state, end.reason or "as the run of another proposal")

    def _job(self, trial: Trial) -> Job:
        return self.preparer.job(trial_run(self.study, trial.number, trial.values))

    def _shares(self, run_id: str, number: int) -> bool:
        """Whether this driver trains the run for another proposal."""
        return run_id in self.jobs and self.jobs[run_id].run.arm != self.study.trial_name(number)

    def _known_end(self, trial: Trial, run_id: str) -> Trial | None:
        """The result of a proposal whose run has ended: finished in any study, or failed or stopped in this search. In
        a deterministic search only its batch decides about stopping."""
        if (done := self.ledger.finished(run_id)) is not None:
            return replace(trial, state="finished", epochs=int(done.last["epoch"]), metrics=dict(done.last))
        ends = ("failed",) if self.search.deterministic else ("failed", "stopped")
        for number in self.numbers.get(run_id, ()):
            if (earlier := self.known[number].trial).state in ends:
                return replace(
                    trial, state=earlier.state, epochs=earlier.epochs, metrics=earlier.metrics, reason=earlier.reason
                )
        return None

    def _ended(self, number: int, error: bool) -> Trial:
        run_id, trial = self.known[number]
        end = end_of(self.ledger, self.store, run_id, "its process died" if error else "")
        last = end.facts.get("last", {})
        over = replace(
            trial,
            state=end.status,  # type: ignore[arg-type]
            epochs=int(last.get("epoch", 0)),
            metrics=last,
            reason=end.facts.get("reason", ""),
        )
        if end.facts.get("cause") not in INFRASTRUCTURE_CAUSES:  # a later proposal of this config may still train
            self._know(Proposal(run_id, over))
            if self._shares(run_id, number):
                self._say(self._job(trial), over)
        return over

    def _judged(self) -> tuple[list[Proposal], dict[int, int]]:
        """Judge the batch when no trial trains; trials that do not pass a rung are recorded as stopped."""
        history, training = to_train(self.study, self.ledger)
        for run_id, trial in history:
            before = self.known[trial.number].trial
            self._know(Proposal(run_id, trial))
            is_open = trial.state == "stopped" and self._status(run_id) in ("running", "interrupted")
            if is_open and self._may_record(run_id):
                assert self.callbacks is not None
                self.callbacks.over(self._job(trial))
            elif before.state == "running" != trial.state and self._shares(run_id, trial.number):
                self._say(self._job(trial), trial)
        return history, training

    def _status(self, run_id: str) -> str:
        run = self.ledger.run(run_id)
        return run.status if run is not None else "missing"

    def _stop_overdue(self) -> None:
        """Record as stopped the trials that were killed at an epoch after which they would have been stopped."""
        for run_id, trial in self.history():
            run = self.ledger.run(run_id)
            if run is None or not run.epochs or run.status in ("finished", "stopped"):
                continue
            overdue = trial.state == "stopped"
            if trial.state == "running" and not self.search.deterministic:
                overdue = not self.goes_on(run_id, run.epochs[-1])
            if overdue and self._may_record(run_id):
                self.ledger.append(self._job(trial).event("stopped", last=run.epochs[-1]))
                if self.claims is not None:
                    self.claims.give_back(run_id)

    def _told(self, history: list[Proposal]) -> list[Trial]:
        """The trials imported from other searches. They are chosen and recorded once, before the first proposal."""
        if not self.search.learn_from:
            return []
        known = imported_trials(self.study, self.ledger)
        if known is None and not history:
            known = find_trials_to_import(self.study, self.ledger, self.preparer)
            event = {"event": "told", "study": self.study.name, "search": self.identity}
            self.ledger.append({**event, "trials": [{"study": whose, **asdict(trial)} for whose, trial in known]})
        return [trial for _, trial in known or []]
