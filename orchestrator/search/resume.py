"""Resume a search: check that its recorded trials still have the same run ids, and which failed ones to retry."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ablations.study.plan import Run, search_identity, trial_run
from ablations.study.schema import Study
from orchestrator.state.study_state import SearchState, StudyRun, StudyState
from orchestrator.store.ledger import Ledger
from trainer.config import TrainConfig, UserError


def refuse_changed(state: SearchState, id_of: Callable[[TrainConfig, str, TrainConfig | None], str | None]) -> None:
    """Raise UserError where a recorded trial would now have another run id: a ranking must not mix data, weights,
    teachers or numerics. `id_of` is `RunIds.of` or `SourceReader.run_id`. Trials whose id is unknown now (None) are not
    checked."""
    firsts: dict[str, tuple[str, Run]] = {}
    for run_id, trial in state.history:
        if run_id:
            run = trial_run(state.study, trial.number, trial.values)
            # trials that read the same data and weights are checked once
            reads = run.config.model_dump_json(include={"data": True, "teacher": True, "student": {"init"}})
            firsts.setdefault(reads, (run_id, run))
    for run_id, run in firsts.values():
        if (now := id_of(run.config, run.key, run.teacher)) not in (None, run_id):
            raise UserError(
                f"{state.study.name}: {run.arm} was run {run_id} and would now be run {now}: data, weights, teacher or "
                "numerics have changed; restore them, or give the study another name (this one keeps its trials)"
            )


def to_retry(state: SearchState, whole: StudyState, is_final: Callable[[StudyRun], bool]) -> list[int]:
    """Numbers of the failed trials that this launch retries: all except final failures.

    In a deterministic search later proposals depend on the failures of earlier batches. So failures are retried only
    while no trial of a later batch has finished or been stopped; later batches are then proposed again.
    """
    search = state.search
    failed = []
    for proposal in state.history[: search.trials]:
        run_id, trial = proposal
        if run_id and trial.state == "failed":
            plan = trial_run(state.study, trial.number, trial.values)
            if not is_final(StudyRun(plan, run_id, whole.trial_run(proposal))):
                failed.append(trial.number)
    if not search.deterministic:
        return failed
    last = max(
        (trial.number // search.batch for trial in state.trials if trial.state in ("finished", "stopped")), default=0
    )
    return [number for number in failed if number // search.batch >= last]


def retry(study: Study, ledger: Ledger, numbers: Iterable[int]) -> None:
    """Record that these trials are to be retried: from now on they count as not ended."""
    for number in numbers:
        ledger.append({"event": "again", "study": study.name, "search": search_identity(study), "number": number})
