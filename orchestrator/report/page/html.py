"""Sections as one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from orchestrator.report.page.parts import Section


def render(
    name: str, about: str, sections: Sequence[Section], *, command: str, origin: str, unfinished: str = ""
) -> str:
    """The page's HTML: the same sections give the same bytes. The footer says which `command` wrote it from what."""
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("orchestrator.report.page", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    drawn = any('class="plot"' in block for made in sections for block in made.blocks)
    return environment.get_template("page.html").render(
        name=name,
        about=about,
        unfinished=unfinished,
        sections=sections,
        command=command,
        origin=origin,
        css=_own("page.css"),
        js=_own("page.js") if drawn else "",
        plotly=Markup(get_plotlyjs()) if drawn else "",
        pictures=_own("pictures.js") if any(made.anchor == "panels" for made in sections) else "",
    )


def _own(name: str) -> Markup:
    return Markup((resources.files("orchestrator.report.page") / name).read_text(encoding="utf-8"))
