"""The sections of a report as one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from orchestrator.report.page import checklist, classes, curves, forest, panels, pareto, provenance, search, tables
from orchestrator.report.page.data import Report
from orchestrator.report.page.parts import Section
from trainer.config import counted

SECTIONS = (tables, forest, curves, classes, pareto, search, panels, provenance, checklist)
"""In the order of the page; each has `section(report)`, which is None where the study has no data for it."""


def page(report: Report) -> str:
    """The page's HTML: the same report gives the same bytes."""
    sections = [made for part in SECTIONS if (made := part.section(report)) is not None]
    return render(report.table.title, sections, report.study.name, unfinished(report))


def render(title: str, sections: Sequence[Section], arguments: str, unfinished: str = "") -> str:
    """The HTML of sections. `title` is a table's; `arguments` are those of the `transkd report` that makes the page."""
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("orchestrator.report.page", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    drawn = any('class="plot"' in block for made in sections for block in made.blocks)
    name, _, about = title.partition("   ")
    return environment.get_template("page.html").render(
        name=name,
        about=about,
        arguments=arguments,
        unfinished=unfinished,
        sections=sections,
        css=_own("page.css"),
        js=_own("page.js") if drawn else "",
        plotly=Markup(get_plotlyjs()) if drawn else "",
        pictures=_own("pictures.js") if any(made.anchor == "panels" for made in sections) else "",
    )


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


def _own(name: str) -> Markup:
    return Markup((resources.files("orchestrator.report.page") / name).read_text(encoding="utf-8"))
