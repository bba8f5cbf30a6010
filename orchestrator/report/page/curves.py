"""Learning curves of each arm: mean over seeds, with a band from the lowest to the highest seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from ablations.study.metric import described
from orchestrator.report.page.data import Report
from orchestrator.report.page.parts import PALETTE, Section, figure, label, plot, rounded, shaded, style, whole_axis
from orchestrator.store.ledger_run import LedgerRun

LOSS = "loss/ce"
"""Cross entropy only: total losses have different terms in each arm and are not comparable."""


@dataclass(frozen=True)
class Curve:
    """A metric by epoch over the seeds of an arm: arrays (E,) over the epochs at which any seed has it."""

    epochs: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    seeds: int


def curve(runs: Sequence[LedgerRun], metric: str) -> Curve | None:
    """The curve of an arm's runs; at an epoch the mean is over the seeds that have reached it. None where there is no
    point."""
    points = [
        {epoch["epoch"]: value for epoch in run.epochs if np.isfinite(value := epoch.get(metric, np.nan))}
        for run in runs
    ]
    epochs = sorted({epoch for own in points for epoch in own})
    if not epochs:
        return None
    values = np.array([[own.get(epoch, np.nan) for epoch in epochs] for own in points if own])
    return Curve(
        np.array(epochs),
        np.nanmean(values, axis=0),
        np.nanmin(values, axis=0),
        np.nanmax(values, axis=0),
        len(values),
    )


def curves(report: Report, metric: str) -> dict[str, Curve]:
    """Arm -> curve, in the order of the table, then the teachers; without those that have none."""
    found = {
        arm: curve([member.run for member in report.groups[arm]], metric) for arm in (*report.arms, *report.teachers)
    }
    return {arm: own for arm, own in found.items() if own is not None}


def curves_figure(found: dict[str, Curve], title: str) -> go.Figure:
    """A line for each arm, with its band; bands are fainter where there are many."""
    alpha = 0.15 if len(found) <= len(PALETTE) else 0.06
    bands, lines = [], []
    for index, (arm, own) in enumerate(found.items()):
        colour, dash = style(index)
        if own.seeds > 1:
            bands.append(
                go.Scatter(
                    x=rounded([*own.epochs, *own.epochs[::-1]]),
                    y=rounded([*own.high, *own.low[::-1]]),
                    fill="toself",
                    fillcolor=shaded(colour, alpha),
                    line={"width": 0},
                    mode="lines",
                    hoverinfo="skip",
                    legendgroup=arm,
                    showlegend=False,
                )
            )
        lines.append(
            go.Scatter(
                x=rounded(own.epochs),
                y=rounded(own.mean),
                name=label(arm),
                legendgroup=arm,
                mode="lines" if len(own.epochs) > 1 else "markers",
                line={"color": colour, "dash": dash, "width": 2},
                hovertemplate=f"{label(arm)}<br>epoch %{{x}}: %{{y:.2f}}<extra></extra>",
            )
        )
    axes = {
        "xaxis": {"rangemode": "tozero", "showgrid": False}
        | whole_axis("epoch", (x for c in found.values() for x in c.epochs)),
        "yaxis": {"title": {"text": title}},
    }
    return figure([*bands, *lines], 420, **axes)


def section(report: Report) -> Section | None:
    """The study's metric, and the cross entropy of training."""
    metric = report.study.metric
    blocks = []
    for name, title in ((metric, f"{described(metric)} (%)"), (LOSS, "cross entropy in training")):
        if found := curves(report, name):
            band = "; the band reaches from the lowest seed to the highest" if _has_band(found) else ""
            caption = f"{title[0].upper()}{title[1:]} by epoch: the mean over seeds{band}.{report.of_all}"
            blocks.append(plot(f"curve-{name.replace('/', '-')}", curves_figure(found, title), caption))
    return Section("curves", "Learning curves", tuple(blocks)) if blocks else None


def _has_band(found: dict[str, Curve]) -> bool:
    return any(own.seeds > 1 for own in found.values())
