"""Our Tune Searcher: a study's proposals as trials, in whatever order they end.

Proposal n is a function of (seed, n, what was told before). What was told is rebuilt from the ledger, so a killed
search goes on as if it had never stopped. `batch_searcher.py` makes a parallel search repeatable as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ray.tune.search import Searcher

from ablations.study.schema import Study
from ablations.study.trial import Trial
from orchestrator.search.optuna_sampling import OptunaSampling
from orchestrator.state.proposals import Proposal
from trainer.config import UserError

MOST_INFEASIBLE = 1000
"""Proposals that may be infeasible in a row before the space is called empty."""


class RecordedProposal(NamedTuple):
    """A proposal that has been recorded: the run that computes it, and what a trial of it is started with.

    Where its end is known already, for the same config was trained before, it needs no trial.
    """

    run_id: str
    settings: dict[str, Any]
    end: Trial | None = None


class StudySearcher(Searcher):
    """Proposes a study's trials to Tune, interrupted ones first.

    `begin(trial)` records a proposal and makes its run, or raises UserError where it is infeasible: it is told as
    failed, and another is asked for. `ended(number, error)` says how the trial of a proposal ended. Two proposals of
    one config are one run: the second is told what the first was, and takes its number all the same.
    """

    def __init__(
        self,
        study: Study,
        history: Sequence[Proposal],
        told: Sequence[Trial],
        begin: Callable[[Trial], RecordedProposal],
        ended: Callable[[int, bool], Trial],
    ) -> None:
        assert study.search is not None
        super().__init__()
        self.study = study
        self.search = study.search
        self.begin = begin
        self.ended = ended
        self.count = len(history)
        self.sampling = OptunaSampling(study, told)
        self.training: dict[str, list[int]] = {}
        """By run, the proposals that wait for it; the first is whose trial it is."""
        self.run_of: dict[str, str] = {}
        self._recall([trial for _, trial in history])

    def _recall(self, trials: Sequence[Trial]) -> None:
        """Take up what was proposed before this driver."""
        self.sampling.rebuild(trials)
        self.again = [trial for trial in trials if trial.state == "running"]

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles this for a restore of its own; ours reads the ledger."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial's config: one that a kill interrupted, else a new one; FINISHED where there is none."""
        while (begun := self._next()) is not None:
            trial, run = begun
            if run.end is not None:
                self.sampling.tell(run.end)
            elif run.run_id in self.training:
                self.training[run.run_id].append(trial.number)
            else:
                self._start(trial_id, run)
                self.training[run.run_id].append(trial.number)
                return {"job": run.settings}
        return Searcher.FINISHED

    def _next(self) -> tuple[Trial, RecordedProposal] | None:
        if self.again:
            trial = self.again.pop(0)
            self.sampling.repeat(trial)
            return trial, self.begin(trial)
        return self._propose() if self.count < self.search.trials else None

    def _propose(self) -> tuple[Trial, RecordedProposal]:
        """The next new proposal, recorded."""
        why = ""
        for attempt in range(MOST_INFEASIBLE):
            trial = Trial(self.count, self.sampling.ask(self.count, attempt), "running", infeasible=attempt)
            try:
                run = self.begin(trial)
            except UserError as error:
                why = str(error)
                self.sampling.refuse(self.count)
                continue
            self.count += 1
            return trial, run
        raise UserError(
            f"{self.study.name}: {MOST_INFEASIBLE} proposals in a row were infeasible; loosen the space; "
            f"the last: {why}"
        )

    def _start(self, trial_id: str, run: RecordedProposal) -> None:
        self.training[run.run_id] = []
        self.run_of[trial_id] = run.run_id

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing to learn before the end: stopping is the scheduler's."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell how the trial ended."""
        for number in self.training.pop(self.run_of.pop(trial_id)):
            self.sampling.tell(self.ended(number, error))

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger holds what a search has been told."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: `proposals` restores from the ledger."""
