"""Lessons: trials of other searches in the store that a search is told before its first proposal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablations.plan import proposes, search_identity, space, trial_config, trial_run
from ablations.ranking import Trial
from ablations.space import ANY_STUDY
from ablations.study import Study
from orchestrator.jobs import Job, Preparer
from orchestrator.ledger import Ledger
from orchestrator.proposals import Lesson
from trainer.config import UserError


def lessons(study: Study, ledger: Ledger, preparer: Preparer, teachers: Mapping[str, Job]) -> list[Lesson]:
    """The finished and stopped trials of the searches that `search.learn_from` names, oldest first, each run once.

    What is told is a run that this search could have proposed itself: its values are in the space, and with them this
    study's own base makes the very same run, of the same data and seed. So nothing needs to be assumed of two studies
    whose spaces or bases differ. Earlier searches of this study count where it names itself.
    """
    search = study.search
    assert search is not None
    identity = search_identity(study)
    runs = ledger.outcomes()
    found: dict[str, Lesson] = {}
    for event in ledger.events():
        if event["event"] != "trial" or "run_id" not in event:
            continue
        if (event["study"], event["search"]) == (study.name, identity):
            continue
        run = runs[event["run_id"]]
        named = ANY_STUDY in search.learn_from or event["study"] in search.learn_from
        if not named or run.status not in ("finished", "stopped") or not _proposable(study, event["values"]):
            continue
        try:
            if trial_config(study, event["values"]).key != event["key"]:
                continue
            ours = preparer.job(trial_run(study, len(found), event["values"]), teachers)
        except UserError:
            continue
        if ours.run_id == run.run_id:
            costs = event.get("costs", {})
            last = dict(run.last)
            trial = Trial(len(found), event["values"], run.status, int(last["epoch"]), last, costs=costs)  # type: ignore[arg-type]
            found.setdefault(run.run_id, Lesson(event["study"], trial))
    return list(found.values())


def _proposable(study: Study, values: Mapping[str, Any]) -> bool:
    """Whether a proposal of this search could hold these values, and no others."""
    seen: dict[str, Any] = {}
    for path, dimension in space(study).items():
        if not proposes(study, path, seen):
            continue
        try:
            seen[path] = dimension.proposal(values[path])
        except (KeyError, UserError):
            return False
    return seen == dict(values)
