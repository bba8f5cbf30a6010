"""The page of a report: which sections it has, and in which order."""

from __future__ import annotations

from orchestrator.report.page import checklist, classes, curves, forest, panels, pareto, provenance, search, tables
from orchestrator.report.page.data import Report
from orchestrator.report.page.html import render
from trainer.config import counted

SECTIONS = (tables, forest, curves, classes, pareto, search, panels, provenance, checklist)
"""In the order of the page; each has `section(report)`, which is None where the study has no data for it."""


def page(report: Report) -> str:
    """The page's HTML: the same report gives the same bytes."""
    sections = [made for part in SECTIONS if (made := part.section(report)) is not None]
    _, _, about = report.table.title.partition("   ")
    name = report.study.name
    written_by = {"command": f"transkd report {name}", "origin": "the ledger alone"}
    return render(name, about, sections, unfinished=unfinished(report), **written_by)


def unfinished(report: Report) -> str:
    """How many runs have ended, while some have not; else empty."""
    runs = [member.run.status for member in report.members]
    planned = len(runs)
    for searched in report.searched:
        runs += [trial.state for trial in searched.trials]
        planned += max(searched.search.trials, len(searched.trials))
    ended = sum(status in ("finished", "failed", "stopped") for status in runs)
    if ended == planned:
        return ""
    running = f", {count} running" if (count := runs.count("running")) else ""
    return f"Incomplete: {ended} of {counted(planned, 'run')} ended{running}."
