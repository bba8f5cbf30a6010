"""Report: the data of a study's report, read once from the ledger; figures and files are functions of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ablations.statistics.outcome import scores_of
from ablations.statistics.reproduction import Reproduction, reproductions
from ablations.study.schema import Study
from ablations.study.search import Search
from ablations.study.trial import Trial
from ablations.table.shape import Table
from orchestrator.report.table import table, trials
from orchestrator.state.outcomes import outcome
from orchestrator.state.proposals import Proposal
from orchestrator.state.study_state import StudyRun, StudyState
from orchestrator.store.folder import Store
from orchestrator.store.ledger_run import LedgerRun

MOST_ARMS = 16
"""Figures with a line or column for each arm show at most so many arms."""


@dataclass(frozen=True)
class Searched:
    """A search: its arm (empty where the study is one search), the search as a study, and its proposals with runs."""

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
        """The trial of each proposal."""
        return [proposal.trial for proposal in self.history]


@dataclass(frozen=True)
class Report:
    """A study at one state of the ledger: the table, its runs, its searches, and the paths of panels."""

    study: Study
    table: Table
    members: tuple[StudyRun, ...]
    """The runs that are needed so far (`StudyState.due`)."""
    searched: tuple[Searched, ...]
    published: dict[str, Reproduction]
    panels: dict[str, Path]
    """By arm or teacher, the panel of the first seed that has one."""

    @cached_property
    def scores(self) -> dict[str, dict[int, float]]:
        """Arm -> seed -> the study's metric at the last epoch, of finished runs."""
        outcomes = {member.plan.key: outcome(member.run) for member in self.members}
        return {arm: scores_of(self.study, [m.plan for m in group], outcomes) for arm, group in self.groups.items()}

    @cached_property
    def groups(self) -> dict[str, list[StudyRun]]:
        """The members of each row, teachers too, in the order of the table."""
        found: dict[str, list[StudyRun]] = {}
        for member in self.members:
            found.setdefault(member.plan.arm, []).append(member)
        return found

    @cached_property
    def arms(self) -> list[str]:
        """The arms that figures show, in the order of the table: all, or references and the highest scores."""
        arms = [arm for arm, group in self.groups.items() if group[0].plan.role == "arm"]
        if len(arms) <= MOST_ARMS:
            return arms
        references = list(dict.fromkeys(reference for _, reference in self.study.pairs))[: MOST_ARMS // 2]
        mean = {arm: sum(s.values()) / len(s) if (s := self.scores[arm]) else -math.inf for arm in arms}
        highest = sorted((arm for arm in arms if arm not in references), key=lambda arm: -mean[arm])
        kept = {*references, *highest[: MOST_ARMS - len(references)]}
        return [arm for arm in arms if arm in kept]

    @cached_property
    def teachers(self) -> list[str]:
        """The rows of trained teachers, which figures show beside the arms."""
        return self.arms and [arm for arm, group in self.groups.items() if group[0].plan.role == "teacher"]

    @cached_property
    def of_all(self) -> str:
        """The sentence for captions of figures that leave out arms; empty where none does."""
        count = sum(group[0].plan.role == "arm" for group in self.groups.values())
        if count == len(self.arms):
            return ""
        return f" Shown are {len(self.arms)} of {count} arms: the references and those with the highest means."

    @cached_property
    def runs(self) -> list[LedgerRun]:
        """Every run that was started, trials included, each once."""
        found = {member.run.run_id: member.run for member in self.members if member.run.run_id}
        found |= {run.run_id: run for search in self.searched for run in search.runs if run.run_id}
        return list(found.values())


def report_of(state: StudyState, store: Store) -> Report:
    """The report of a study. Of the store only run folders are read; nothing is written."""
    return Report(
        study=state.study,
        table=table(state),
        members=tuple(state.due),
        searched=tuple(_searched(state)),
        published=reproductions(state.study, [run.plan for run in state.due], state.outcomes),
        panels=_panels(state.due, store),
    )


def _searched(state: StudyState) -> Iterator[Searched]:
    for search in state.searches:
        history = trials(state, search)
        yield Searched(search.arm, search.study, tuple(history), tuple(map(state.trial_run, history)))


def _panels(members: Sequence[StudyRun], store: Store) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for member in members:
        path = store.run_dir(member.run.run_id) / "panel.png" if member.run.run_id else None
        if path is not None and member.plan.arm not in found and member.run.status == "finished" and not path.exists():
            store.fetch_run(member.run.run_id, whole=False)
        if member.plan.arm not in found and path is not None and path.is_file():
            found[member.plan.arm] = path
    return found
