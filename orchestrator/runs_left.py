"""Which runs and trials of a study are left to train, and which of them can train beside its teachers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from orchestrator.search.resume import to_retry
from orchestrator.state.study_state import SearchState, StudyRun, StudyState


def to_train(state: StudyState, runs: Sequence[StudyRun]) -> list[StudyRun]:
    """The runs that are to be trained, each id once: neither finished nor final failures."""
    distinct = {run.run_id: run for run in reversed(runs) if not run.plan.awaits}
    return [run for run in reversed(distinct.values()) if not (run.finished or is_final_failure(state, run))]


def is_final_failure(state: StudyState, run: StudyRun) -> bool:
    """Whether a failed run is not to be retried; never with `retry_failed`."""
    return not state.retry_failed and state.is_final_failure(run)


def arms_due(state: StudyState) -> list[StudyRun]:
    """The arms' runs that are needed now; finished runs may add those of the next look."""
    return [run for run in state.due if run.plan.role == "arm"]


def trials_to_retry(state: StudyState, search: SearchState) -> list[int]:
    """The numbers of the failed trials of a search that are to be trained again."""
    return to_retry(search, state, lambda run: is_final_failure(state, run))


def trials_left(state: StudyState, search: SearchState) -> int:
    """Trials of a search that are still to be trained, those to retry included."""
    return search.left + len(trials_to_retry(state, search))


def count_all(state: StudyState) -> int:
    """The number of runs and trials, without the seeds of looks that have not been reached."""
    return len(state.due) + sum(search.search.trials for search in state.searches)


def count_left(state: StudyState) -> int:
    """The number of runs and trials that are still to be done."""
    trials = {search.arm: trials_left(state, search) for search in state.searches}
    to_come = sum(bool(run.plan.awaits and trials[run.plan.arm]) for run in state.due)
    runs = to_train(state, [*state.teachers.values(), *arms_due(state)])
    return len(runs) + to_come + sum(trials.values())


def unfinished(state: StudyState) -> dict[str, str]:
    """Label -> reason of the runs that have not finished, without trials: the table shows how those ended."""
    found = {}
    for run in state.due:
        if run.plan.awaits:
            found[run.label] = state.outcomes[run.plan.key].reason
        elif not run.finished:
            found[run.label] = run.run.why if run.run.run_id else "not started"
    return found


def missing_teachers(state: StudyState) -> dict[str, StudyRun]:
    """The teachers that have not finished, by the key of their config."""
    return {key: run for key, run in state.teachers.items() if not run.finished}


def with_teacher(state: StudyState, runs: Sequence[StudyRun]) -> list[StudyRun]:
    """The runs that need no teacher, or one that has finished."""
    missing = missing_teachers(state)
    return [run for run in runs if run.plan.needs not in missing]


def lacks_teacher(state: StudyState, arm: str) -> bool:
    """Whether the teacher of an arm's trials has not finished; without an arm, whether any teacher has not."""
    missing = missing_teachers(state).keys()
    needs = {run.plan.needs for run in state.runs if run.plan.role == "arm" and run.plan.arm == arm}
    return bool(missing & needs if arm else missing)


def beside_teachers(state: StudyState, slots: int, cost: Callable[[StudyRun], float]) -> list[StudyRun]:
    """Runs without a teacher for the slots that would be free while teachers train, as many as end with these. `cost`
    is that of a run, in any unit."""
    training = to_train(state, list(state.teachers.values()))
    free = (slots - len(training)) * max(map(cost, training), default=0.0)
    chosen = []
    for run in to_train(state, arms_due(state)):
        if run.plan.teacher is None and free > 0:
            chosen.append(run)
            free -= cost(run)
    return chosen
