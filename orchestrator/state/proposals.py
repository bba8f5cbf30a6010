"""Proposals: what a search has proposed so far and what came of it, as the ledger has it. Without Optuna and Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from ablations.study.early_stopping import Curve, TrialSoFar, batch_verdicts
from ablations.study.plan import search_identity
from ablations.study.schema import Study
from ablations.study.search import Search
from ablations.study.trial import Trial
from orchestrator.store.ledger import Ledger, LedgerRun, numbers
from trainer.config import parse

PASSING = ("lost", "preempted", "disk")
"""Causes of a failure that say nothing of what was proposed: such a trial is run again."""


class Proposal(NamedTuple):
    """An earlier proposal: the run that computes it, empty where none can, and what came of it."""

    run_id: str
    trial: Trial


class Lesson(NamedTuple):
    """A trial of another search, told to this one before its first proposal; `study` is whose it was."""

    study: str
    trial: Trial


def proposals(study: Study, ledger: Ledger) -> list[Proposal]:
    """The proposals of this very search so far, in order. One that has ended stays as it is, whatever other studies
    make of its run: what a search was told does not change afterwards. In a deterministic search the curves decide."""
    search = study.search
    assert search is not None
    found = _recorded(study, search, ledger)
    return _judged(study, search, found, ledger)[0] if search.deterministic else found


def to_train(study: Study, ledger: Ledger) -> tuple[list[Proposal], dict[int, int]]:
    """The proposals of a deterministic search, and of those that are to train on now, by number, the epochs done."""
    assert study.search is not None
    return _judged(study, study.search, _recorded(study, study.search, ledger), ledger)


def curve(run: LedgerRun | None, metric: str) -> Curve:
    """The curve of a run: what the metric was after each epoch that measured it."""
    epochs = run.epochs if run is not None else []
    return {int(epoch["epoch"]): epoch[metric] for epoch in epochs if metric in epoch}


def told(study: Study, ledger: Ledger) -> list[Lesson] | None:
    """What this search was told before its first proposal; None before it has begun."""
    identity = search_identity(study)
    for event in ledger.events():
        if event["event"] == "told" and event["study"] == study.name and event["search"] == identity:
            given = [(trial.pop("study"), trial) for trial in map(dict, event["trials"])]
            return [Lesson(whose, Trial(**{**t, "metrics": numbers(t["metrics"])})) for whose, t in given]
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


def _recorded(study: Study, search: Search, ledger: Ledger) -> list[Proposal]:
    identity = search_identity(study)
    # A trial of a deterministic search is stopped where its curve says so, which may be elsewhere in a longer search.
    final = ("finished", "failed") if search.deterministic else ("finished", "failed", "stopped")
    asked: dict[int, dict[str, Any]] = {}
    ends: dict[int, dict[str, Any]] = {}
    by_run: dict[str, list[int]] = {}
    for event in ledger.events():
        if event.get("study", study.name) != study.name:
            continue
        if event["event"] == "trial" and event["search"] == identity:
            number = event["number"]
            asked[number] = event
            by_run.setdefault(event.get("run_id", ""), []).append(number)
            if "end" in event:
                ends[number] = event["end"]
        elif event["event"] == "again" and event["search"] == identity:
            ends.pop(event["number"], None)
            if search.deterministic:  # later batches were proposed because it had failed
                batch = event["number"] // search.batch
                for number in [number for number in asked if number // search.batch > batch]:
                    del asked[number]
                    ends.pop(number, None)
        elif event["event"] in final and event.get("cause") not in PASSING:
            run_id = event.get("run_id", "")
            for number in by_run.get(run_id, ()):
                if asked.get(number, {}).get("run_id") == run_id:
                    ends.setdefault(number, event)
    return [
        Proposal(event.get("run_id", ""), _trial(event, ends.get(number, {})))
        for number, event in sorted(asked.items())
    ]


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
            last = next(epoch for epoch in runs[run_id].epochs if epoch["epoch"] == verdict.epoch)
            trial = replace(trial, state="stopped", epochs=verdict.epoch, metrics=last, reason="")
        elif verdict.state != "ended":
            trial = replace(trial, state="running", epochs=0, metrics={}, reason="")
        if verdict.state == "trains":
            training[trial.number] = len(runs[run_id].epochs)
        found.append(Proposal(run_id, trial))
    return found, training
