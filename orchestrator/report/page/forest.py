"""Forest plot: paired differences of each contrast, with mean, interval, verdict and equivalence margin."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import plotly.graph_objects as go

from ablations.statistics.paired import SeedName, paired
from ablations.table.shape import Table
from orchestrator.report.page.data import Report
from orchestrator.report.page.parts import VERDICTS, Section, figure, label, plot, rounded

ROW = 46
"""Height of a contrast in pixels: its name above, its points below."""


@dataclass(frozen=True)
class Difference:
    """A contrast in points of the metric; `seeds` are the differences of single seeds."""

    arm: str
    reference: str
    mean: float
    low: float
    high: float
    verdict: str
    seeds: tuple[float, ...]


def differences(report: Report) -> list[Difference]:
    """The contrasts that have at least one pair of seeds, in the order of the table."""
    return differences_of(report.table, report.scores)


def differences_of(table: Table, scores: Mapping[str, Mapping[SeedName, float]]) -> list[Difference]:
    """The contrasts of a table that have a difference, in its order; `scores` by arm and seed."""
    return [
        Difference(
            values["arm"],
            values["reference"],
            values["difference"],
            values["interval_low"],
            values["interval_high"],
            values["verdict"],
            # the seeds of the verdict: an arm may have more seeds by now, for another contrast
            tuple(paired(scores[values["arm"]], scores[values["reference"]])[: values.get("pairs", 0)]),
        )
        for values in (row.values for row in table.rows)
        if math.isfinite(values.get("difference", math.nan))
    ]


def forest_figure(rows: list[Difference], margin: float | None, digits: int = 2, unit: str = "points") -> go.Figure:
    """A row for each contrast, the first on top: small rings are seeds, the large symbol is their mean."""
    decimals = f"%{{x:+.{digits}f}}"
    seeds = go.Scatter(
        x=rounded([x for row in rows for x in row.seeds]),
        y=[i for i, row in enumerate(rows) for _ in row.seeds],
        mode="markers",
        name="one seed",
        marker={"symbol": "circle-open", "size": 6, "color": "#999999"},
        hovertemplate=f"one seed: {decimals}<extra></extra>",
    )
    traces = [seeds] if any(row.seeds for row in rows) else []
    for verdict, (colour, symbol) in VERDICTS.items():
        if own := [(i, row) for i, row in enumerate(rows) if row.verdict == verdict]:
            traces.append(
                go.Scatter(
                    x=rounded([row.mean for _, row in own]),
                    y=[i for i, _ in own],
                    mode="markers",
                    name=verdict,
                    marker={"symbol": symbol, "size": 11, "color": colour},
                    error_x={
                        "type": "data",
                        "symmetric": False,
                        "array": rounded([row.high - row.mean for _, row in own]),
                        "arrayminus": rounded([row.mean - row.low for _, row in own]),
                        "color": colour,
                        "thickness": 2,
                        "width": 5,
                    },
                    text=[f"{label(row.arm)} against {label(row.reference)}" for _, row in own],
                    hovertemplate=f"%{{text}}<br>{decimals}, {verdict}<extra></extra>",
                )
            )
    names = [
        {
            "x": 0,
            "xref": "paper",
            "xanchor": "left",
            "y": i,
            "yanchor": "bottom",
            "yshift": 8,
            "showarrow": False,
            "text": f"<b>{label(row.arm)}</b> against {label(row.reference)}",
        }
        for i, row in enumerate(rows)
    ]
    zero = {
        "type": "line",
        "x0": 0,
        "x1": 0,
        "y0": 0,
        "y1": 1,
        "yref": "paper",
        "line": {"width": 1, "color": "#808080"},
    }
    band = {
        "type": "rect",
        "x0": -(margin or 0),
        "x1": margin,
        "y0": 0,
        "y1": 1,
        "yref": "paper",
        "fillcolor": "rgba(128,128,128,0.15)",
        "line": {"width": 0},
        "layer": "below",
    }
    return figure(
        traces,
        90 + ROW * len(rows),
        margin={"l": 8, "r": 8, "t": 12, "b": 44},
        annotations=names,
        shapes=[zero, band] if margin else [zero],
        xaxis={"title": {"text": f"difference in {label(unit)}"}, "zeroline": False},
        yaxis={"range": [len(rows) - 0.4, -0.9], "visible": False, "fixedrange": True},
    )


def section(report: Report) -> Section | None:
    """The declared contrasts."""
    rows = differences(report)
    if not rows:
        return None
    margin = report.study.margin
    shaded = f" The shaded band is the equivalence margin of ±{margin:g} points." if margin else ""
    caption = (
        "Paired differences by contrast: single seeds, their mean, and the interval of the differences that the test "
        f"does not reject. A contrast with too few seeds for an interval has none.{shaded}"
    )
    return Section("differences", "Differences", (plot("forest", forest_figure(rows, margin), caption),))
