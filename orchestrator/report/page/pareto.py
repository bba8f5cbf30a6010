"""Accuracy against cost of the deployed student, with the Pareto front."""

from __future__ import annotations

import plotly.graph_objects as go

from ablations.statistics.pareto import COSTS, Point, arm_points
from ablations.study.metric import described
from orchestrator.report.page.data import Report
from orchestrator.report.page.parts import Section, figure, label, plot, rounded, side_by_side, style


def pareto_figure(points: list[Point], cost: str, title: str) -> go.Figure:
    """A point for each arm, and the Pareto front."""
    front = sorted((p for p in points if cost in p.on), key=lambda p: p.costs[cost])
    line = go.Scatter(
        x=rounded(p.costs[cost] for p in front),
        y=rounded(p.accuracy for p in front),
        mode="lines",
        line={"color": "#808080", "width": 1.5, "shape": "hv"},
        name="front",
        hoverinfo="skip",
    )
    arms = []
    for index, point in enumerate(points):
        colour, _ = style(index)
        arms.append(
            go.Scatter(
                x=rounded([point.costs[cost]]),
                y=rounded([point.accuracy]),
                mode="markers",
                marker={"color": colour, "size": 11, "symbol": "circle" if cost in point.on else "circle-open"},
                name=label(point.arm),
                hovertemplate=f"{label(point.arm)}<br>%{{x}} {COSTS[cost]}, %{{y:.2f}}<extra></extra>",
            )
        )
    axes = {"xaxis": {"title": {"text": COSTS[cost]}, "rangemode": "tozero"}, "yaxis": {"title": {"text": title}}}
    return figure([line, *arms], 400, **axes)


def section(report: Report) -> Section | None:
    """A figure for each cost that differs between arms."""
    points = [point for point in arm_points([row.values for row in report.table.rows]) if point.arm in report.arms]
    blocks = []
    for cost in COSTS:
        if len({point.costs[cost] for point in points if cost in point.costs}) > 1:
            caption = f"Accuracy against {COSTS[cost]}. Filled: on the Pareto front.{report.of_all}"
            title = f"{described(report.study.metric)} (%)"
            blocks.append(plot(f"pareto-{cost}", pareto_figure(points, cost, title), caption))
    return Section("cost", "Accuracy against cost", (side_by_side(blocks),)) if blocks else None
