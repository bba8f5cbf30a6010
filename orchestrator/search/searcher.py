"""StudySearcher: a Tune searcher that proposes a study's trials; they may end in any order.

Proposal n is a function of (seed, n, results told before). The results are read from the ledger, so that a killed
search continues as if it had not stopped. With `batch_searcher.py` a parallel search is reproducible too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ray.tune.search import Searcher

from ablations.study.schema import Study
from ablations.study.trial import Trial
from orchestrator.running.shared_searcher import SharedSearcher, together
from orchestrator.search.optuna_sampling import OptunaSampling
from orchestrator.state.proposals import Proposal
from trainer.config import UserError

Claim = Callable[[Sequence[str]], Sequence[str] | None]
MOST_INFEASIBLE = 1000
"""Infeasible proposals in a row after which the search fails."""


class RecordedProposal(NamedTuple):
    """A recorded proposal: its run id and the settings of its trial.

    `end` is set where the same config was trained before: then it needs no trial.
    """

    run_id: str
    settings: dict[str, Any]
    end: Trial | None = None


class StudySearcher(SharedSearcher):
    """Proposes a study's trials to Tune, interrupted ones first. `claim(run_ids)` returns the runs that are to be
    trained, without those whose end it has recorded; None where another driver trains one of them.

    `begin(trial)` records a proposal and makes its run, or raises UserError where it is infeasible: then Optuna is told
    of a failure and asked for another. `ended(number, error)` returns how a proposal's trial ended. Two proposals of
    one config share a run and its result, but have numbers of their own.
    """

    def __init__(
        self,
        study: Study,
        history: Sequence[Proposal],
        told: Sequence[Trial],
        begin: Callable[[Trial], RecordedProposal],
        ended: Callable[[int, bool], Trial],
        claim: Claim = list,
    ) -> None:
        assert study.search is not None
        super().__init__()
        self.study = study
        self.search = study.search
        self.begin = begin
        self.ended = ended
        self.claim = claim
        self.elsewhere: Trial | None = None
        """The proposal whose run another driver trains: the next one waits for its result."""
        self.count = len(history)
        self.sampling = OptunaSampling(study, told)
        self.training: dict[str, list[int]] = {}
        """Run id -> proposals that wait for the run; the trial is the first one's."""
        self.runs_of: dict[str, list[str]] = {}
        """Tune's id of a trial -> the runs that it trains."""
        self._recall([trial for _, trial in history])

    def _recall(self, trials: Sequence[Trial]) -> None:
        """Tell Optuna the results of recorded proposals; those that have not ended are started again."""
        self.sampling.rebuild(trials)
        self.again = [trial for trial in trials if trial.state == "running"]

    def next_config(self) -> dict[str, Any] | str | None:
        """The next trial's config: one that a kill interrupted, else a new one; None while another driver trains its
        run; FINISHED where there is none."""
        while (begun := self._next()) is not None:
            trial, run = begun
            if run.end is not None:
                self.sampling.tell(run.end)
            elif run.run_id in self.training:
                self.training[run.run_id].append(trial.number)
            elif claimed := self.claim([run.run_id]):
                config = self._together([run])
                self.training[run.run_id].append(trial.number)
                return config
            else:
                self.elsewhere = trial
                if claimed is None:
                    return None
        return Searcher.FINISHED

    def startable(self) -> int:
        """The trials that a kill interrupted and those to come."""
        return len(self.again) + self.search.trials - self.count + (self.elsewhere is not None)

    def _next(self) -> tuple[Trial, RecordedProposal] | None:
        if self.elsewhere is not None:
            trial, self.elsewhere = self.elsewhere, None
            return trial, self.begin(trial)
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
            f"{self.study.name}: {MOST_INFEASIBLE} proposals in a row were infeasible; widen search.space; "
            f"the last: {why}"
        )

    def _together(self, cohort: Sequence[RecordedProposal]) -> dict[str, Any]:
        """The config of the trial in which these runs train together."""
        self.training |= {run.run_id: [] for run in cohort}
        return together([run.settings for run in cohort])

    def started(self, trial_id: str, config: dict[str, Any]) -> None:
        """Remember the runs of a trial."""
        self.runs_of[trial_id] = [settings["run_id"] for settings in config["jobs"]]

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell Optuna how the trial ended."""
        super().on_trial_complete(trial_id, result, error)
        for run_id in self.runs_of.pop(trial_id):
            for number in self.training.pop(run_id):
                self.sampling.tell(self.ended(number, error))
