"""Proposals: the trials that a search has proposed so far and how they ended, from the ledger. No Optuna, no Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from ablations.study.early_stopping import Curve, TrialSoFar, batch_verdicts
from ablations.study.plan import search_identity
from ablations.study.schema import Study
from ablations.study.search import Search
from ablations.study.trial import Trial
from orchestrator.store.ledger import Ledger, Mark
from orchestrator.store.ledger_run import LedgerRun, numbers
from trainer.config import parse

INFRASTRUCTURE_CAUSES = ("lost", "preempted", "device", "disk")
"""Causes of a failure that do not depend on the proposed values: such a trial is run again."""


class Proposal(NamedTuple):
    """A proposal: the id of its run (empty where it is infeasible) and the trial with its result."""

    run_id: str
    trial: Trial


class ImportedTrial(NamedTuple):
    """A trial of another study's search, given to this search's sampler before its first proposal."""

    study: str
    trial: Trial


def proposals(study: Study, ledger: Ledger) -> list[Proposal]:
    """The proposals of this search so far, in order. The result of an ended trial stays as it was, even where another
    study trains its run further. In a deterministic search the curves decide when a trial is stopped."""
    search = study.search
    assert search is not None
    found = _recorded(study, search, ledger)
    return _judged(study, search, found, ledger)[0] if search.deterministic else found


def to_train(study: Study, ledger: Ledger) -> tuple[list[Proposal], dict[int, int]]:
    """The proposals of a deterministic search, and by number the epochs done of those that are to be trained now."""
    assert study.search is not None
    return _judged(study, study.search, _recorded(study, study.search, ledger), ledger)


def curve(run: LedgerRun | None, metric: str) -> Curve:
    """The curve of a run: epoch -> metric, of the epochs that measured it."""
    epochs = run.epochs if run is not None else []
    return {int(epoch["epoch"]): epoch[metric] for epoch in epochs if metric in epoch}


def imported_trials(study: Study, ledger: Ledger) -> list[ImportedTrial] | None:
    """The trials that this search imported before its first proposal; None before it has begun."""
    identity = search_identity(study)
    for event in ledger.events():
        if event["event"] == "told" and event["study"] == study.name and event["search"] == identity:
            given = [(trial.pop("study"), trial) for trial in map(dict, event["trials"])]
            return [ImportedTrial(whose, Trial(**{**t, "metrics": numbers(t["metrics"])})) for whose, t in given]
    return None


def _trial(asked: Mapping[str, Any], end: Mapping[str, Any]) -> Trial:
    last = numbers(end.get("last") or {})
    return Trial(
        asked["number"],
        asked["values"],
        end.get("event", "running"),
        int(last.get("epoch", 0)),
        last,
        end.get("reason", ""),
        asked.get("costs", {}),
        asked.get("infeasible", 0),
    )


class _Recorded:
    """The proposals of one search, folded from the ledger's events; only new events are read each time."""

    def __init__(self, study: str, search: Search, identity: str) -> None:
        self.study = study
        self.search = search
        self.identity = identity
        # in a deterministic search `stopped` is decided from the curves, in `_judged`
        self.final = ("finished", "failed") if search.deterministic else ("finished", "failed", "stopped")
        self.mark: Mark | None = None
        self._forget()

    def _forget(self) -> None:
        self.asked: dict[int, dict[str, Any]] = {}
        self.ends: dict[int, Mapping[str, Any]] = {}
        self.by_run: dict[str, list[int]] = {}
        self.found: dict[int, Proposal] = {}

    def proposals(self, ledger: Ledger) -> list[Proposal]:
        """All proposals by now, in the order of their numbers."""
        events, mark = ledger.events_from(self.mark)
        if self.mark is not None and mark.fold is not self.mark.fold:
            self._forget()  # the ledger file was replaced: `events` starts from its beginning
        self.mark = mark
        for event in events:
            if event.get("study", self.study) == self.study:
                self._fold(event)
        for number in self.asked.keys() - self.found.keys():
            event = self.asked[number]
            self.found[number] = Proposal(event.get("run_id", ""), _trial(event, self.ends.get(number, {})))
        return [self.found[number] for number in sorted(self.found)]

    def _fold(self, event: Mapping[str, Any]) -> None:
        kind = event["event"]
        if kind == "trial" and event.get("search") == self.identity:
            number = event["number"]
            self.asked[number] = dict(event)
            self.by_run.setdefault(event.get("run_id", ""), []).append(number)
            self.found.pop(number, None)
            if "end" in event:
                self.ends[number] = event["end"]
        elif kind == "again" and event["search"] == self.identity:
            self._open(event["number"])
            if self.search.deterministic:  # proposals of later batches depend on this failure
                batch = event["number"] // self.search.batch
                for number in [number for number in self.asked if number // self.search.batch > batch]:
                    self._open(number)
                    del self.asked[number]
        elif kind in self.final and event.get("cause") not in INFRASTRUCTURE_CAUSES:
            run_id = event.get("run_id", "")
            for number in self.by_run.get(run_id, ()):
                if self.asked.get(number, {}).get("run_id") == run_id and number not in self.ends:
                    self.ends[number] = event
                    self.found.pop(number, None)

    def _open(self, number: int) -> None:
        """Mark the proposal as not ended."""
        self.ends.pop(number, None)
        self.found.pop(number, None)


_RECORDED: dict[tuple[Any, ...], _Recorded] = {}
"""By ledger and search, one for the process: an event is folded once."""


def _recorded(study: Study, search: Search, ledger: Ledger) -> list[Proposal]:
    identity = search_identity(study)
    asked = (ledger.path, study.name, identity, search.deterministic, search.batch)
    if asked not in _RECORDED:
        _RECORDED[asked] = _Recorded(study.name, search, identity)
    return _RECORDED[asked].proposals(ledger)


def _judged(
    study: Study, search: Search, recorded: list[Proposal], ledger: Ledger
) -> tuple[list[Proposal], dict[int, int]]:
    runs = ledger.outcomes()
    seen = [
        TrialSoFar(curve(runs.get(run_id), search.metric), "" if trial.state == "running" else trial.state)  # type: ignore[arg-type]
        for run_id, trial in recorded
    ]
    verdicts = batch_verdicts(search, parse(study.base).optim.epochs, seen)
    found, training = [], {}
    for (run_id, trial), verdict in zip(recorded, verdicts, strict=True):
        if verdict.state == "stopped":
            last = dict(next(epoch for epoch in runs[run_id].epochs if epoch["epoch"] == verdict.epoch))
            trial = replace(trial, state="stopped", epochs=verdict.epoch, metrics=last, reason="")
        elif verdict.state != "ended":
            trial = replace(trial, state="running", epochs=0, metrics={}, reason="")
        if verdict.state == "trains":
            training[trial.number] = len(runs[run_id].epochs)
        found.append(Proposal(run_id, trial))
    return found, training
