"""Progress: the state of each run of a study, and estimates of the time left. Reads the ledger and never writes."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean

from orchestrator.state.study_state import SearchState, StudyState
from orchestrator.store.ledger_run import LedgerRun
from trainer.config import parse

ORDER = ("finished", "running", "waiting", "interrupted", "stopped", "failed", "missing")
AHEAD = ("running", "waiting", "interrupted", "missing")
"""States of runs that still have epochs to train."""
AGAIN = {
    "lost": "a lost worker",
    "preempted": "a machine taken back",
    "device": "a failed GPU",
    "memory": "too little memory",
    "bug": "an error",
}
"""Descriptions of failure causes, for the note on the next attempt."""


@dataclass(frozen=True)
class RunProgress:
    """One run of a study: its state, and how many of its epochs are done."""

    label: str
    role: str
    state: str
    epoch: int
    epochs: int
    score: float | None = None
    """`metric`, as last measured."""
    epoch_s: float = 0.0
    """Mean seconds of an epoch; 0 before the first."""
    note: str = ""
    """Why it failed, or why it was retried."""
    metric: str = ""
    """The metric of `score`: the search's of a trial, the study's of others."""
    like: str = ""
    """The arm whose runs take as long as this one; empty for trials of a search over all arms."""

    @property
    def left(self) -> int:
        """Epochs that are still to be trained."""
        return self.epochs - self.epoch if self.state in AHEAD else 0


@dataclass(frozen=True)
class StudyStatus:
    """All runs of a study, and who drives it; None if nobody does."""

    runs: list[RunProgress]
    driver: str | None

    @property
    def counts(self) -> dict[str, int]:
        """The number of runs by state, without states that no run has."""
        found = [run.state for run in self.runs]
        return {state: found.count(state) for state in ORDER if state in found}


def study_status(state: StudyState, drivers: Mapping[str, str]) -> StudyStatus:
    """The status of all runs; `drivers` are those of the store now (`Leases.drivers`)."""
    return StudyStatus(list(_runs(state, drivers)), drivers.get(state.study.name) or drivers.get(""))


def run_progress(
    label: str, role: str, epochs: int, metric: str, state: str, run: LedgerRun | None, like: str = ""
) -> RunProgress:
    """The progress of a run as the ledger has it now."""
    if run is None:
        return RunProgress(label, role, state, 0, epochs, metric=metric, like=like)
    note = run.why if state == "failed" else attempt_in_words(run) if state == "running" else ""
    return RunProgress(label, role, state, run.epochs_done, epochs, run.latest(metric), run.epoch_s, note, metric, like)


def attempt_in_words(run: LedgerRun) -> str:
    """`again after a lost worker, attempt 2`; empty for a first attempt."""
    if not run.retries:
        return ""
    last = run.retries[-1]
    size = f", micro-batch {last['micro_batch']}" if last.get("micro_batch") else ""
    return f"again after {AGAIN.get(last['cause'], last['cause'])}, attempt {run.attempts}{size}"


def best(runs: Collection[RunProgress]) -> RunProgress | None:
    """The arm's run with the highest score so far; the best trial where no arm has a score; None where no trial has."""
    scored = {run.label: run.score for run in runs if run.score is not None and not math.isnan(run.score)}
    for role in ("arm", "trial"):
        of_role = [run for run in runs if run.role == role and run.label in scored]
        if of_role:
            return max(of_role, key=lambda run: scored[run.label])
    return None


def left_s(runs: Collection[RunProgress], at_once: int) -> float | None:
    """Seconds until all runs have ended, `at_once` in parallel: the total divided evenly, and at least the longest run.
    A run without an epoch takes the mean time of the epochs of like runs: those of its arm, else of its role, else of
    all. A trial that has not begun trains as many epochs as ended trials did on average. None before the first epoch.
    """
    pace: dict[tuple[str, ...], list[float]] = {}
    for run in runs:
        for key in _alike(run) if run.epoch_s else ():
            pace.setdefault(key, []).append(run.epoch_s)
    if not pace:
        return None
    means = {key: fmean(seconds) for key, seconds in pace.items()}
    tried = [run.epoch for run in runs if run.role == "trial" and run.state in ("finished", "stopped")]
    to_come = fmean(tried) if tried else math.inf
    work = [
        min(run.left, to_come if run.role == "trial" and not run.epoch else run.left)
        * (run.epoch_s or next(means[key] for key in _alike(run) if key in means))
        for run in runs
    ]
    return max(sum(work) / max(1, at_once), max(work))


def _alike(run: RunProgress) -> list[tuple[str, ...]]:
    """Groups of runs whose epochs may take as long as this one's, the likest first."""
    return [*([(run.role, run.like), ("", run.like)] if run.like else []), (run.role,), ()]


def in_words(seconds: float | None) -> str:
    """`about 4 min left`; empty where it is unknown or 0."""
    if not seconds:
        return ""
    if seconds >= 2 * 3600:
        return f"about {seconds / 3600:.1f} h left"
    return f"about {seconds / 60:.0f} min left" if seconds >= 90 else f"about {seconds:.0f} s left"


def epochs_of(runs: Collection[RunProgress]) -> tuple[int, int]:
    """Epochs done, and epochs in total; the total excludes the epochs that stopped and failed runs will not train."""
    done = sum(run.epoch for run in runs)
    return done, done + sum(run.left for run in runs)


def best_in_words(runs: Collection[RunProgress]) -> str:
    """`best select/miou 61.20 (trial 7)`; empty before the first score."""
    run = best(runs)
    return f"best {run.metric} {run.score:.2f} ({run.label})" if run is not None else ""


def _runs(state: StudyState, drivers: Mapping[str, str]) -> Iterator[RunProgress]:
    metrics = metrics_of(state)
    for run in state.due:
        now = "missing" if run.lost else _now(run.run.status, {run.run.trained_by}, drivers)
        entry = run.run if run.run.run_id and not run.lost else None
        other = None if entry else state.entries.get(run.run_id)
        if other is not None and other.status == "running" and other.trained_by in drivers:
            now, entry = "running", other  # by the driver of another study
        role, epochs = run.plan.role, run.plan.config.optim.epochs
        yield run_progress(run.label, role, epochs, metrics[role], now, entry, run.plan.arm)
    for search in state.searches:
        yield from _trials(state, search, drivers)


def metrics_of(state: StudyState) -> dict[str, str]:
    """The metric of each role's runs: the search's for trials, the study's for arms and teachers."""
    found = {"arm": state.study.metric, "teacher": state.study.metric}
    return found | ({"trial": state.searches[0].search.metric} if state.searches else {})


def _trials(state: StudyState, search: SearchState, drivers: Mapping[str, str]) -> Iterator[RunProgress]:
    study, metric = search.study, search.search.metric
    epochs = parse(study.base).optim.epochs
    for proposal in search.history:
        number, run = proposal.trial.number, state.entries.get(proposal.run_id)
        now = _now(proposal.trial.state, {state.study.name, run.trained_by if run is not None else ""}, drivers)
        yield run_progress(study.trial_name(number), "trial", epochs, metric, now, run, search.arm)
    for number in range(len(search.history), search.search.trials):
        yield run_progress(study.trial_name(number), "trial", epochs, metric, "missing", None, search.arm)


def _now(status: str, studies: Collection[str], drivers: Mapping[str, str]) -> str:
    """The current state: `running` in the ledger means interrupted unless a study that trains it has a driver."""
    return "interrupted" if status == "running" and not drivers.keys() & {*studies, ""} else status


def stopped_in_words(runs: Collection[RunProgress]) -> str:
    """`5 stopped, at epoch 1 (3), 3 (2)`; empty where no run was stopped."""
    epochs = [run.epoch for run in runs if run.state == "stopped"]
    if not epochs:
        return ""
    counted = ", ".join(f"{epoch} ({epochs.count(epoch)})" for epoch in sorted(set(epochs)))
    return f"{len(epochs)} stopped, at epoch {counted}"
