"""Results: what the ledger says of a study's runs, as the table people read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ablations.outcome import Outcome
from ablations.plan import expand
from ablations.ranking import search_table
from ablations.study import Study
from ablations.table import Table, build_table
from ablations.winners import winners
from orchestrator.ledger import Ledger, LedgerRun
from orchestrator.proposals import Proposal, proposals, told
from orchestrator.store import Store
from orchestrator.tuned import awaited, tuning

STATUS = {"finished": "finished", "failed": "failed"} | dict.fromkeys(("running", "interrupted", "stopped"), "running")


def of_study(study: Study, ledger: Ledger) -> dict[str, LedgerRun]:
    """The study's runs by config key. Where data or numerics changed, the run that the study used last."""
    found: dict[str, LedgerRun] = {}
    latest: dict[str, str] = {}
    for event in ledger.events():
        if event.get("study") == study.name and "run_id" in event:
            latest[event["key"]] = event["run_id"]
    runs = ledger.outcomes()
    for key, run_id in latest.items():
        found[key] = runs[run_id]
    return found


def known(study: Study, ledger: Ledger) -> dict[str, LedgerRun]:
    """`of_study`, and by config key what other studies have finished: runs that need not be run again."""
    finished = {run.key: run for run in ledger.outcomes().values() if run.status == "finished"}
    return finished | of_study(study, ledger)


def trials(study: Study, ledger: Ledger) -> list[Proposal]:
    """The proposals of a search, as people read them: one that failed has the epochs that it trained before it did."""
    runs = ledger.outcomes()
    found = []
    for run_id, trial in proposals(study, ledger):
        run = runs.get(run_id)
        if trial.state == "failed" and run is not None and run.status == "failed" and run.epochs:
            last = run.epochs[-1]
            trial = replace(trial, epochs=int(last["epoch"]), metrics=last)
        found.append(Proposal(run_id, trial))
    return found


def table(study: Study, store: Store) -> Table:
    """The study's table as the ledger stands now; a search's best trials where the study is a search."""
    ledger = Ledger(store.ledger)
    if study.search is not None:
        from orchestrator.importance import importances

        history = trials(study, ledger)
        taught = Counter(whose for whose, _ in told(study, ledger) or [])
        ranking = search_table(study, [trial for _, trial in history], taught=taught)
        shares = importances(study, history)
        if not shares:
            return ranking
        listed = ", ".join(f"{path} {share:.2f}" for path, share in sorted(shares.items(), key=lambda kv: -kv[1]))
        note = f"importance (PED-ANOVA of the finished trials): {listed}"
        return Table(ranking.title, ranking.columns, ranking.rows, (*ranking.notes, note))
    runs = of_study(study, ledger)
    tuned = tuning(study, ledger)
    plan = expand(study, winners(tuned))
    outcomes = {key: outcome(run) for key, run in runs.items()} | awaited(plan, tuned)
    costs = {
        key: {**run.complexity, "hardware": hardware(run.environment)} for key, run in runs.items() if run.complexity
    }
    return build_table(study, plan, outcomes, costs, tuned)


def outcome(run: LedgerRun) -> Outcome:
    """A ledger's run in the table's words."""
    return Outcome(STATUS.get(run.status, "missing"), run.last, run.why, run.best)  # type: ignore[arg-type]


def hardware(environment: Mapping[str, Any]) -> str:
    """A run's hardware as a table says it: `cpu (x86_64, 1 thread)`, `cuda (NVIDIA H100)`. GPUs of one kind are one."""
    device = str(environment.get("device", "")).partition(":")[0]
    parts = [environment.get("device_name") or (environment.get("processor") if device == "cpu" else None)]
    if device == "cpu" and (threads := environment.get("threads")):
        parts.append(f"{threads} thread{'s' if threads != 1 else ''}")
    named = ", ".join(str(part) for part in parts if part)
    return f"{device} ({named})" if named else device
