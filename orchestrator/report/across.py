"""The report across studies: their states become one table, and the table a page and files."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from ablations.statistics.across import Claim, Part, across_verdicts, common_contrasts
from ablations.table.shape import Table
from orchestrator.report.files import PAGE
from orchestrator.report.page.forest import Difference, forest_figure
from orchestrator.report.page.html import render
from orchestrator.report.page.parts import Section, plot
from orchestrator.report.page.tables import table_html
from orchestrator.report.table_files import write_table
from orchestrator.state.study_state import StudyState
from trainer.config import UserError
from trainer.files.run_folder import write_text


def parts_of(states: Sequence[StudyState]) -> list[Part]:
    """The studies with their runs and outcomes. Raises UserError where their finished runs are of several numerics
    versions, and where a run is of two studies."""
    first = states[0]
    for state in states:
        own, theirs = state.sources.numerics, first.sources.numerics
        if own != theirs:
            raise UserError(
                f"--across: {state.study.name} was computed by numerics version {own} and {first.study.name} by "
                f"{theirs}, and no table mixes them; run the older one again, or leave it out"
            )
    _check_own_runs(states)
    return [Part(state.study, [run.plan for run in state.runs], state.outcomes, state.uncounted()) for state in states]


def _check_own_runs(states: Sequence[StudyState]) -> None:
    """Raise UserError where a run is an arm's in two studies: its score would count twice, and the test takes the
    differences of the studies as independent."""
    first: dict[str, str] = {}
    for name, run in ((state.study.name, run) for state in states for run in state.runs):
        if run.plan.role == "arm" and run.run_id and (other := first.setdefault(run.run_id, name)) != name:
            raise UserError(
                f"--across: {name} and {other} share runs ({run.plan.arm} seed {run.plan.seed}), and a run may count "
                "in one study only; leave one of them out"
            )


def write_across(parts: Sequence[Part], table: Table, folder: Path, common: bool = False) -> Path:
    """Write the table's files (see `write_table`) and the page into a folder; returns the path of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    write_table(table, folder)
    write_text(folder / PAGE, _page(parts, table, common))
    return folder / PAGE


def _page(parts: Sequence[Part], table: Table, common: bool) -> str:
    names = [part.study.name for part in parts]
    claims = across_verdicts(parts, common_contrasts([part.study for part in parts], common))
    more = [table_html(further, further.title.replace("   ", ": ", 1)) for further in table.more]
    sections = [Section("table", "Results", (table_html(table), *more))]
    if rows := [row for claim in claims for row in _differences(claim, names)]:
        caption = (
            "Differences by contrast: over all studies, each of which weighs the same, then in each study: single "
            "seeds, their mean, and the interval of the differences that the test does not reject."
        )
        sections.append(Section("differences", "Differences", (plot("forest", forest_figure(rows, None), caption),)))
    arguments = " ".join([*map(shlex.quote, names), "--across", *(["--common"] if common else [])])
    name, _, about = table.title.partition("   ")
    return render(name, about, sections, command=f"transkd report {arguments}", origin="the ledger alone")


def _differences(claim: Claim, names: Sequence[str]) -> list[Difference]:
    """The rows of a contrast in the forest plot: over all studies, and below in each that has a pair."""
    if not all(one.found.n for one in claim.studies):
        return []
    whole = Difference(claim.arm, claim.reference, claim.difference, claim.low, claim.high, claim.verdict, ())
    each = [
        Difference(
            f"{claim.arm} on {name}",
            claim.reference,
            one.found.difference,
            one.found.low,
            one.found.high,
            one.verdict,
            one.found.differences,
        )
        for name, one in zip(names, claim.studies, strict=True)
    ]
    return [whole, *each]
