"""StudyState: a study's runs by run id, its searches, and which runs are finished, due or not counted.

Computed from (study, ledger, sources); the sources determine the run ids. Plan, estimate, run, status, report, page,
bundle and tracking all read it. It imports no Ray and no torch, and reads no clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple

from ablations.statistics.outcome import Outcome
from ablations.statistics.seed_looks import due
from ablations.statistics.winners import Tuned, winners
from ablations.study.plan import Run, expand
from ablations.study.schema import Study
from ablations.study.search import Search
from ablations.study.trial import Trial
from ablations.study.variant_search import searches
from orchestrator.state.outcomes import outcome
from orchestrator.state.proposals import Proposal, proposals
from orchestrator.state.sources import fingerprints, origin, recorded
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger
from orchestrator.store.ledger_run import LedgerRun
from orchestrator.store.run_folder import checkpoint_lost
from trainer.config import NUMERICS_VERSION, RunIds, Sources, data_key

NOTHING = LedgerRun("")
"""The entry of a run that the ledger does not have."""


class StudyRun(NamedTuple):
    """A run of a study: its plan, its run id under the study's sources, and the ledger's entry of that id."""

    plan: Run
    run_id: str
    """Empty where it is unknown: its search has no winner yet, or the sources lack its data or weights."""
    run: LedgerRun
    other: str = ""
    """Why a finished run of the same config is not counted: `other data`, `other weights`, `another teacher`,
    `numerics version 1`. Empty where this run has finished or there is no such run."""
    lost: bool = False
    """Whether it is a teacher that has finished, whose checkpoint is gone, and that runs still to be trained need."""

    @property
    def finished(self) -> bool:
        """Whether it has finished and need not be trained."""
        return self.run.status == "finished" and not self.lost

    @property
    def epochs_done(self) -> int:
        """Epochs after which it goes on where a kill ended it, by the ledger; 0 where it starts anew."""
        goes_on = self.run.status in ("running", "interrupted")
        return min(len(self.run.epochs), self.plan.config.optim.epochs - 1) if goes_on else 0

    @property
    def epochs_left(self) -> int:
        """Epochs that it is still to train, unless it has finished."""
        return self.plan.config.optim.epochs - self.epochs_done

    @property
    def label(self) -> str:
        """Its name for people."""
        return self.plan.label


class SearchState(NamedTuple):
    """A search of a study: its arm (empty where the study is one search), the search as a study, and its proposals."""

    arm: str
    study: Study
    history: list[Proposal]

    @property
    def search(self) -> Search:
        """Its schema."""
        assert self.study.search is not None
        return self.study.search

    @property
    def trials(self) -> list[Trial]:
        """The trial of each proposal."""
        return [trial for _, trial in self.history]

    @property
    def left(self) -> int:
        """The number of its trials that have not ended."""
        ended = sum(trial.state != "running" for trial in self.trials[: self.search.trials])
        return self.search.trials - ended


class StudyState:
    """A study and the ledger at the time of construction.

    Without `sources`, those of the study's last launch are used, so that a report needs neither data nor weights. With
    `sources`, a run whose data or weights they lack has no id and counts as missing; it is in `unchecked` where a run
    of its config has finished. `before` is an earlier state of the same study, whose plan is used again unless winners
    have changed it. With `retry_failed` runs whose failure is final are to be trained too, and need their teachers.
    """

    def __init__(
        self,
        study: Study,
        ledger: Ledger,
        sources: Sources | None = None,
        before: StudyState | None = None,
        *,
        retry_failed: bool = False,
    ) -> None:
        self.study = study
        self.ledger = ledger
        self.retry_failed = retry_failed
        self.entries = ledger.outcomes()
        self.sources = recorded(study.name, ledger) if sources is None else sources
        self._ids = RunIds(self.sources)
        self.as_recorded = sources is None
        self.searches = [SearchState(arm, own, proposals(own, ledger)) for arm, own in searches(study).items()]
        self._winners = winners(self.tuned)
        self._plan: list[Run] = (
            before._plan if before and before._winners == self._winners else expand(study, self._winners)
        )
        self.runs = self._identified(self._plan)
        if lost := self._lost_teachers():
            self.runs = [run._replace(lost=run.plan.key in lost) for run in self.runs]

    @cached_property
    def tuned(self) -> dict[str, Tuned]:
        """Arm -> its search and the trials so far; empty where no arm is tuned."""
        if self.study.tune_each is None:
            return {}
        return {
            state.arm: Tuned(state.search, tuple(t for t in state.trials if t.number < state.search.trials))
            for state in self.searches
        }

    @cached_property
    def outcomes(self) -> dict[str, Outcome]:
        """`Run.key` -> outcome: of runs in the ledger, and of runs whose search is not over or has no winner."""
        found = {run.plan.key: outcome(run.run) for run in self.runs if run.run is not NOTHING}
        return found | {key: Outcome("missing" if t.left else "failed", reason=t.reason) for key, t in self._waiting()}

    @property
    def due(self) -> list[StudyRun]:
        """The runs that are needed so far: all except seeds of looks that have not been reached."""
        return [run for run in self.runs if run.plan.key in self._due_keys]

    @property
    def teachers(self) -> dict[str, StudyRun]:
        """By `Run.key`."""
        return {run.plan.key: run for run in self.runs if run.plan.role == "teacher"}

    @cached_property
    def unchecked(self) -> list[StudyRun]:
        """Runs without an id of whose config a run has finished: whether they will be reused is unknown."""
        return [r for r in self.runs if not r.run_id and not r.plan.awaits and r.plan.key in self._finished_by_key]

    @property
    def knows_configs(self) -> bool:
        """Whether the ledger has a run of any planned config or a trial: only then do ids matter."""
        keys = {run.key for run in self.entries.values()}
        return any(run.plan.key in keys for run in self.runs) or any(state.history for state in self.searches)

    @property
    def members(self) -> Iterable[LedgerRun]:
        """The ledger's runs of this study: planned runs and trials, each once."""
        found = {run.run_id: run.run for run in self.runs if run.run is not NOTHING}
        ids = (run_id for state in self.searches for run_id, _ in state.history if run_id in self.entries)
        return (found | {run_id: self.entries[run_id] for run_id in ids}).values()

    def trial_run(self, proposal: Proposal) -> LedgerRun:
        """The ledger's entry of a proposal's run."""
        return self.entries.get(proposal.run_id, LedgerRun(proposal.run_id))

    def is_final_failure(self, run: StudyRun) -> bool:
        """Whether a failure is due to the config: the loss of the run or of its teacher was not finite."""
        if run.run.status != "failed":
            return False
        teacher = self.teachers.get(run.plan.needs or "")
        if run.run.cause == "teacher" and teacher is not None:
            return self.is_final_failure(teacher)
        return run.run.cause == "nan"

    def uncounted(self) -> list[str]:
        """Notes on finished runs of the same configs that are not counted: other data, weights, teacher, numerics."""
        seeds: dict[str, int] = {}
        by_arm: dict[tuple[str, str], int] = {}
        for run in self.due:
            seeds[run.plan.arm] = seeds.get(run.plan.arm, 0) + 1
            if run.other:
                by_arm[run.plan.arm, run.other] = by_arm.get((run.plan.arm, run.other), 0) + 1
        alike: dict[tuple[int, int, str], list[str]] = {}
        for (arm, other), count in by_arm.items():
            alike.setdefault((count, seeds[arm], other), []).append(arm)
        notes = [
            f"Not counted: {n} of {of} seed{'s' * (of > 1)} {'is' if n == 1 else 'are'} of {other}: {', '.join(arms)}."
            for (n, of, other), arms in alike.items()
        ]
        if self.as_recorded and self.sources.numerics != NUMERICS_VERSION and any(run.finished for run in self.runs):
            notes.append(
                f"Computed by numerics version {self.sources.numerics}; this installation is version "
                f"{NUMERICS_VERSION}, and `transkd run` would train these runs again."
            )
        return notes

    @cached_property
    def _due_keys(self) -> set[str]:
        return {run.key for run in due(self.study, self._plan, self.outcomes)}

    def _lost_teachers(self) -> set[str]:
        """The keys of finished teachers whose checkpoint is gone, and which runs or trials still to be trained need."""
        store = Store(self.ledger.path.parent)
        gone = {key for key, run in self.teachers.items() if run.finished and checkpoint_lost(store, run.run)}
        if not gone:
            return set()
        left = {search.arm for search in self.searches if search.left}
        needed = {
            run.plan.needs
            for run in self.due
            if run.plan.awaits or not (run.finished or (self.is_final_failure(run) and not self.retry_failed))
        }
        needed |= {run.plan.needs for run in self.runs if run.plan.arm in left}
        return gone if "" in left else gone & needed

    def _waiting(self) -> Iterable[tuple[str, Tuned]]:
        return ((run.plan.key, self.tuned[run.plan.arm]) for run in self.runs if run.plan.awaits)

    @cached_property
    def _finished(self) -> list[LedgerRun]:
        """Those that finished last come last."""
        finished = (run for run in self.entries.values() if run.status == "finished")
        return sorted(finished, key=lambda run: run.changed)

    @cached_property
    def _finished_by_key(self) -> dict[str, LedgerRun]:
        """The run of each config that finished last."""
        return {run.key: run for run in self._finished}

    @cached_property
    def _own_finished_by_key(self) -> dict[str, LedgerRun]:
        """The run of each config that finished last, of those of this study: others say nothing of its seeds."""
        return {run.key: run for run in self._finished if self._is_ours(run)}

    @cached_property
    def _own_by_key(self) -> dict[str, LedgerRun]:
        """The run of each config that this study has used last."""
        return {
            run.key: run for run in sorted(self.entries.values(), key=lambda run: run.changed) if self._is_ours(run)
        }

    def _is_ours(self, run: LedgerRun) -> bool:
        return any(member.study == self.study.name for member in run.members)

    def _identified(self, plan: Iterable[Run]) -> list[StudyRun]:
        ids = self._ids
        return [self._of(run, "" if run.awaits else ids.of(run.config, run.key, run.teacher) or "") for run in plan]

    def _of(self, run: Run, run_id: str) -> StudyRun:
        if not run_id and self.as_recorded and not run.awaits:
            return self._assumed(run)
        found = self.entries.get(run_id)
        # an unfinished run of another study is not one of this study, unless its failure is final
        counts = found and (found.status == "finished" or found.cause == "nan" or self._is_ours(found))
        entry = found if found is not None and counts else NOTHING
        if entry.status == "finished" or not run_id:
            return StudyRun(run, run_id, entry)
        before = self._own_finished_by_key.get(run.key)
        return StudyRun(run, run_id, entry, "" if before is None else self._origin(run, before))

    def _assumed(self, run: Run) -> StudyRun:
        """The run of a plan where the ledger lacks the sources: the last of its config, unless that is known to be of
        another numerics version or of other data."""
        found = self._own_by_key.get(run.key) or self._finished_by_key.get(run.key)
        if found is None:
            return StudyRun(run, "", NOTHING)
        if found.status == "finished" and self._contradicts(run, found):
            return StudyRun(run, "", NOTHING, self._origin(run, found) if self._is_ours(found) else "")
        return StudyRun(run, found.run_id, found)

    def _contradicts(self, run: Run, found: LedgerRun) -> bool:
        if found.environment.get("numerics", self.sources.numerics) != self.sources.numerics:
            return True
        name = data_key(run.config.data, run.config.eval.splits)
        meant = self.sources.data.get(name) or self._data_by_plan.get(name)
        return bool(found.data and meant) and fingerprints(found) != meant

    @cached_property
    def _data_by_plan(self) -> dict[str, tuple[str, ...]]:
        """By `data_key`, the data of the last finished run, where the plan says of which config it is and the ledger
        does not."""
        names = {run.key: data_key(run.config.data, run.config.eval.splits) for run in self._plan}
        last = sorted(self._finished, key=self._is_ours)
        return {names[run.key]: fingerprints(run) for run in last if run.data and run.key in names}

    def _origin(self, run: Run, found: LedgerRun) -> str:
        teacher = self._ids.of(run.teacher) if run.teacher else None
        return origin(
            found, self.sources, self.sources.data.get(data_key(run.config.data, run.config.eval.splits)), teacher
        )
