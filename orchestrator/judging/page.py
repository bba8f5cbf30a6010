"""The page of judged scores: the table, the differences, every score, and how the scores were read."""

from __future__ import annotations

import plotly.graph_objects as go
from markupsafe import Markup

from ablations.statistics.measured import Measured, decimals
from ablations.statistics.paired import mean_std
from orchestrator.judging.judged import Judged
from orchestrator.report.page.forest import differences_of, forest_figure
from orchestrator.report.page.html import render
from orchestrator.report.page.parts import Section, figure, label, plot, rounded, style
from orchestrator.report.page.tables import by_seed, table_html


def page(found: Judged, source: str) -> str:
    """The page's HTML: the same scores give the same bytes. `source` is where they come from."""
    measured, (_, _, about) = found.measured, found.table.title.partition("   ")
    caption = f"{measured.metric} of each seed" if measured.paired else f"{measured.metric}; values are no pairs"
    values = by_seed(measured.scores, measured.seeds, caption, decimals(measured) + 1)
    shown = Section("table", "Results", (table_html(found.table), *values))
    sections = [shown, _differences(found), _scores(measured), _reading(found, source)]
    return render(found.name, about, sections, command="transkd judge", origin=source)


def _differences(found: Judged) -> Section:
    rows, measured = differences_of(found.table, found.measured.scores), found.measured
    drawn = forest_figure(rows, measured.margin, decimals(measured) + 1, measured.metric)
    pairs = "single seeds, their mean" if measured.paired else "the difference of the means"
    less = " Less is better: an arm to the left of 0 is better." if measured.minimise else ""
    caption = (
        f"Differences by contrast: {pairs}, and the interval of the differences that the test does not reject. A "
        f"contrast with too few scores for an interval has none.{less}"
    )
    return Section("differences", "Differences", (plot("forest", drawn, caption),))


def _scores(measured: Measured) -> Section:
    """Every score of each arm, and their means."""
    traces = []
    for index, (arm, own) in enumerate(measured.scores.items()):
        colour, _ = style(index)
        traces += [
            go.Scatter(
                x=rounded(own.values()),
                y=[label(arm)] * len(own),
                mode="markers",
                marker={"color": colour, "size": 8, "symbol": "circle-open"},
                text=[label(seed) for seed in own],
                hovertemplate="%{text}: %{x}<extra></extra>",
                showlegend=False,
            ),
            go.Scatter(
                x=rounded([mean_std(list(own.values()))[0]]),
                y=[label(arm)],
                mode="markers",
                marker={"color": colour, "size": 16, "symbol": "line-ns-open", "line": {"width": 3}},
                hovertemplate="mean: %{x}<extra></extra>",
                showlegend=False,
            ),
        ]
    axes = {"xaxis": {"title": {"text": label(measured.metric)}, "zeroline": False}}
    axes |= {"yaxis": {"automargin": True, "autorange": "reversed", "showgrid": False}}
    drawn = figure(traces, 90 + 34 * len(measured.scores), **axes)
    return Section("scores", "Scores", (plot("scores", drawn, "Every score of each arm; the line is their mean."),))


def _reading(found: Judged, source: str) -> Section:
    """Where the scores come from, and what was guessed or left out."""
    said = Markup("\n").join(
        Markup("<li>{}</li>").format(remark) for remark in (f"Scores of {source}.", *found.remarks)
    )
    return Section("reading", "How the scores were read", (Markup("<ul>{}</ul>").format(said),))
