"""BatchSearcher: the searcher of a deterministic search, whose proposals do not depend on how many trials run at once.

Proposals are made in batches, and their results are told to Optuna in the order of their numbers. At a rung of ASHA the
process of a trial ends. Once all trials of the batch have reached the rung, those that continue are started again from
their checkpoints. So the results do not depend on timing, and a paused trial holds neither CPU nor GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray.tune.search import Searcher

from ablations.study.trial import Trial
from orchestrator.running.shared_searcher import SharedSearcher
from orchestrator.search.searcher import RecordedProposal, StudySearcher
from orchestrator.state.proposals import Proposal


class BatchSearcher(StudySearcher):
    """Proposes batches. `judged()` returns all proposals of the ledger, and by number the epochs done of those that are
    to be trained now; `cohorts(run_ids)` which of their runs train together."""

    def __init__(
        self,
        *given: Any,
        judged: Callable[[], tuple[list[Proposal], dict[int, int]]],
        cohorts: Callable[[Sequence[str]], list[list[str]]],
    ) -> None:
        self.judged = judged
        self.cohorts = cohorts
        self.batch: list[int] = []
        self.due: list[list[RecordedProposal]] = []
        self.sent: dict[str, int] = {}
        super().__init__(*given)

    def _recall(self, trials: Sequence[Trial]) -> None:
        """Repeat the proposals of each batch before telling its results, as in the original order."""
        for first in range(0, len(trials), self.search.batch):
            batch = trials[first : first + self.search.batch]
            for trial in batch:
                self.sampling.repeat(trial)
            self.batch = [trial.number for trial in batch]
            if len(batch) == self.search.batch and all(trial.state != "running" for trial in batch):
                self._tell(batch)

    def next_config(self) -> dict[str, Any] | str | None:
        """The next trials of the batch that train together; None while the rest of it trains, also elsewhere; FINISHED
        where there is none."""
        while True:
            while not self.due:
                if self.training:
                    return None
                if not self._advance():
                    return Searcher.FINISHED
            claims = ((cohort, self.claim([run.run_id for run in cohort])) for cohort in self.due)
            found = next(((cohort, claimed) for cohort, claimed in claims if claimed is not None), None)
            if found is None:
                return None
            cohort, claimed = found
            self.due.remove(cohort)
            if runs := [run for run in cohort if run.run_id in claimed]:
                return self._together(runs)

    def startable(self) -> int:
        """What is queued of the batch, or the next batch once all of this one has been trained."""
        return len(self.due) or (0 if self.training else self.search.batch)

    def _advance(self) -> bool:
        """Called when no trial trains: judge the batch and queue the next trials, of this batch or a new one."""
        history, training = self.judged()
        if training:
            return self._queue([history[number] for number in training], training)
        if len(self.batch) == self.search.batch:
            self._tell([history[number].trial for number in self.batch])
        before = self.count
        while self.count < self.search.trials and len(self.batch) < self.search.batch:
            trial, _ = self._propose()
            self.batch.append(trial.number)
        return self.count > before

    def _queue(self, proposals: Sequence[Proposal], done: Mapping[int, int]) -> bool:
        """Queue the trials that continue, each run once. False where one has made no progress since its last start: its
        process was lost for good, and the batch waits for the next launch."""
        for run_id, trial in proposals:
            if self.sent.get(run_id) == done[trial.number]:
                return False
        begun: dict[str, RecordedProposal] = {}
        for run_id, trial in proposals:
            if run_id not in begun:
                begun[run_id] = self.begin(trial)
                self.sent[run_id] = done[trial.number]
        self.due += [[begun[run_id] for run_id in cohort] for cohort in self.cohorts(list(begun))]
        return True

    def _tell(self, batch: Sequence[Trial]) -> None:
        for trial in batch:
            self.sampling.tell(trial)
        self.batch = []

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Results are told to Optuna when the batch is over, from the ledger."""
        SharedSearcher.on_trial_complete(self, trial_id, result, error)
        for run_id in self.runs_of.pop(trial_id):
            self.training.pop(run_id)
