"""Data: all that a report says of a study, gathered once from the ledger; figures and files are functions of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ablations.statistics.outcome import scores_of
from ablations.statistics.reproduction import Reproduction, reproductions
from ablations.statistics.seed_looks import due
from ablations.study.plan import Run
from ablations.study.schema import Study
from ablations.study.search import Search
from ablations.study.trial import Trial
from ablations.study.variant_search import searches
from ablations.table.shape import Table
from orchestrator.report.table import table, trials
from orchestrator.state.proposals import Proposal
from orchestrator.state.runs import of_study, outcome
from orchestrator.state.tuned_arms import awaited, planned, tuning
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger, LedgerRun

MOST_ARMS = 16
"""Arms that a figure with a line or a column for each can hold."""


@dataclass(frozen=True)
class Member:
    """A run of the study: as planned, and what the ledger holds of it."""

    plan: Run
    run: LedgerRun


@dataclass(frozen=True)
class Searched:
    """A search: of which arm (empty where the study is one search), as a study, and its proposals with their runs."""

    arm: str
    study: Study
    history: tuple[Proposal, ...]
    runs: tuple[LedgerRun, ...]

    @property
    def search(self) -> Search:
        """Its schema."""
        assert self.study.search is not None
        return self.study.search

    @property
    def trials(self) -> list[Trial]:
        """The proposals and what came of them, without their runs' ids."""
        return [proposal.trial for proposal in self.history]


@dataclass(frozen=True)
class Report:
    """A study as its ledger stands: the table, the runs behind it, its searches, and where pictures lie."""

    study: Study
    table: Table
    members: tuple[Member, ...]
    searched: tuple[Searched, ...]
    published: dict[str, Reproduction]
    panels: dict[str, Path]
    """By arm, the panel of the first seed that has one."""

    @cached_property
    def scores(self) -> dict[str, dict[int, float]]:
        """Arm -> seed -> the study's metric at the last epoch, of finished runs."""
        outcomes = {member.plan.key: outcome(member.run) for member in self.members}
        return {arm: scores_of(self.study, [m.plan for m in group], outcomes) for arm, group in self.groups.items()}

    @cached_property
    def groups(self) -> dict[str, list[Member]]:
        """The members of each row, teachers too, in the order of the table."""
        found: dict[str, list[Member]] = {}
        for member in self.members:
            found.setdefault(member.plan.arm, []).append(member)
        return found

    @cached_property
    def arms(self) -> list[str]:
        """The arms that figures show, in the order of the table: all, or those compared with and the highest."""
        arms = [arm for arm, group in self.groups.items() if group[0].plan.role == "arm"]
        if len(arms) <= MOST_ARMS:
            return arms
        references = list(dict.fromkeys(reference for _, reference in self.study.pairs))[: MOST_ARMS // 2]
        mean = {arm: sum(s.values()) / len(s) if (s := self.scores[arm]) else -math.inf for arm in arms}
        highest = sorted((arm for arm in arms if arm not in references), key=lambda arm: -mean[arm])
        kept = {*references, *highest[: MOST_ARMS - len(references)]}
        return [arm for arm in arms if arm in kept]

    @cached_property
    def of_all(self) -> str:
        """What a caption says where arms are left out; empty where none is."""
        count = sum(group[0].plan.role == "arm" for group in self.groups.values())
        if count == len(self.arms):
            return ""
        return f" Shown are {len(self.arms)} of {count} arms: those that others are compared with, and the highest."

    @cached_property
    def runs(self) -> list[LedgerRun]:
        """Every run that was begun, trials too, each once."""
        found = {member.run.run_id: member.run for member in self.members if member.run.run_id}
        found |= {run.run_id: run for search in self.searched for run in search.runs if run.run_id}
        return list(found.values())


def gather(study: Study, store: Store) -> Report:
    """Read a study's report from the store. Nothing is written, so it works beside a live driver."""
    ledger = Ledger(store.ledger)
    found = of_study(study, ledger)
    plan = planned(study, ledger)
    outcomes = {key: outcome(run) for key, run in found.items()} | awaited(plan, tuning(study, ledger))
    members = tuple(Member(run, found.get(run.key, LedgerRun(""))) for run in due(study, plan, outcomes))
    return Report(
        study=study,
        table=table(study, store),
        members=members,
        searched=tuple(_searched(study, ledger)),
        published=reproductions(study, [member.plan for member in members], outcomes),
        panels=_panels(members, store),
    )


def _searched(study: Study, ledger: Ledger) -> Iterator[Searched]:
    if study.search is None and study.tune_each is None:
        return
    runs = ledger.outcomes()
    for arm, own in searches(study).items():
        history = tuple(trials(own, ledger))
        known = tuple(runs.get(proposal.run_id, LedgerRun(proposal.run_id)) for proposal in history)
        yield Searched(arm, own, history, known)


def _panels(members: Sequence[Member], store: Store) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for member in members:
        path = store.run_dir(member.run.run_id) / "panel.png" if member.run.run_id else None
        if member.plan.role == "arm" and member.plan.arm not in found and path is not None and path.is_file():
            found[member.plan.arm] = path
    return found
