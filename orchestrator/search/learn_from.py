"""`learn_from`: trials of other searches in the store that a search imports before its first proposal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from ablations.study.plan import proposes, search_identity, space, trial_config, trial_run
from ablations.study.schema import Study
from ablations.study.search import ANY_STUDY
from ablations.study.trial import Trial
from orchestrator.prepare.jobs import Preparer
from orchestrator.state.proposals import ImportedTrial, imported_trials
from orchestrator.store.ledger import Ledger
from orchestrator.store.ledger_run import LedgerRun
from trainer.config import UserError


def find_trials_to_import(study: Study, ledger: Ledger, preparer: Preparer) -> list[ImportedTrial]:
    """The finished and stopped trials of the searches that `search.learn_from` names, oldest first, each run once.

    A trial is imported only if this search could have proposed it: its values are in the space, and this study's base
    with these values has the same run id. So spaces and bases of the studies may differ. Earlier searches of this study
    are included where it names itself.
    """
    found: dict[str, ImportedTrial] = {}
    for event, run in _candidates(study, ledger):
        try:
            ours = preparer.job(trial_run(study, len(found), event["values"]))
        except UserError:
            continue
        if ours.run_id == run.run_id:
            costs = event.get("costs", {})
            last = dict(run.last)
            trial = Trial(len(found), event["values"], run.status, int(last["epoch"]), last, costs=costs)  # type: ignore[arg-type]
            found.setdefault(run.run_id, ImportedTrial(event["study"], trial))
    return list(found.values())


def learn_from_line(study: Study, ledger: Ledger) -> str:
    """`learns from: first (3 trials), nope (no such search in this store)`: the imported trials; before the first
    proposal those that could be imported, judged by their configs. Empty without `learn_from`."""
    search = study.search
    if search is None or not search.learn_from:
        return ""
    taught = imported_trials(study, ledger)
    if taught is None:
        taken = {run.run_id: event["study"] for event, run in reversed(list(_candidates(study, ledger)))}
        counts = Counter(taken.values())
    else:
        counts = Counter(lesson.study for lesson in taught)
    there = {event["study"] for event in _asked(study, ledger)}
    names = sorted(there) if ANY_STUDY in search.learn_from else search.learn_from
    said = [
        f"{name} ({counts[name]} trial{'' if counts[name] == 1 else 's'})"
        if name in there
        else f"{name} (no such search in this store)"
        for name in names
    ]
    return f"learns from: {', '.join(said) or f'{ANY_STUDY} (no other search in this store)'}"


def _asked(study: Study, ledger: Ledger) -> Iterator[Mapping[str, Any]]:
    """The proposals of other searches that became runs, including earlier searches of this study."""
    ours = (study.name, search_identity(study))
    for event in ledger.events():
        if event["event"] == "trial" and "run_id" in event and (event["study"], event["search"]) != ours:
            yield event


def _candidates(study: Study, ledger: Ledger) -> Iterator[tuple[Mapping[str, Any], LedgerRun]]:
    """The proposals of the named searches that finished or were stopped and whose config this search could propose."""
    assert study.search is not None
    asked = list(_asked(study, ledger))
    runs = ledger.outcomes()  # after the events: other drivers write more of both
    for event in asked:
        run = runs[event["run_id"]]
        named = ANY_STUDY in study.search.learn_from or event["study"] in study.search.learn_from
        if not named or run.status not in ("finished", "stopped") or not _proposable(study, event["values"]):
            continue
        try:
            if trial_config(study, event["values"]).key == event["key"]:
                yield event, run
        except UserError:
            continue


def _proposable(study: Study, values: Mapping[str, Any]) -> bool:
    """Whether a proposal of this search could have exactly these values."""
    seen: dict[str, Any] = {}
    for path, dimension in space(study).items():
        if not proposes(study, path, seen):
            continue
        try:
            seen[path] = dimension.proposal(values[path])
        except (KeyError, UserError):
            return False
    return seen == dict(values)
