"""Search: the history of trials, importances of dimensions, and parallel coordinates."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import plotly.graph_objects as go
from markupsafe import Markup

from ablations.statistics.pareto import front
from ablations.study.arms import short
from ablations.study.trial import Trial
from orchestrator.report.page.data import Report, Searched
from orchestrator.report.page.parallel import parallel_figure
from orchestrator.report.page.parts import PALETTE, Section, figure, label, plot, rounded, side_by_side, whole_axis
from trainer.config import counted, missing

EVALUATORS: dict[Literal["fanova", "ped_anova"], str] = {"fanova": "fANOVA", "ped_anova": "PED-ANOVA"}


def history_figure(trials: Sequence[Trial], metric: str) -> go.Figure:
    """A point for each finished trial and, at its last score, each stopped one; and the best finished so far."""
    traces = []
    for state, symbol, colour in (("stopped", "circle-open", "#808080"), ("finished", "circle", PALETTE[0])):
        if own := _scored([trial for trial in trials if trial.state == state], metric):
            traces.append(
                go.Scatter(
                    x=[trial.number for trial, _ in own],
                    y=rounded(score for _, score in own),
                    mode="markers",
                    name=state,
                    marker={"symbol": symbol, "color": colour, "size": 8},
                    customdata=[trial.epochs for trial, _ in own],
                    hovertemplate="trial %{x}: %{y:.2f} after %{customdata} epochs<extra></extra>",
                )
            )
    ended = _finished(trials, metric)
    best = itertools.accumulate((score for _, score in ended), max)
    line = go.Scatter(
        x=[trial.number for trial, _ in ended],
        y=rounded(best),
        mode="lines",
        name="best so far",
        line={"color": PALETTE[1], "shape": "hv", "width": 2},
        hoverinfo="skip",
    )
    axes = {"xaxis": {"showgrid": False, "zeroline": False} | whole_axis("trial", (trial.number for trial in trials))}
    axes |= {"yaxis": {"title": {"text": f"{metric} (%)"}}}
    return figure([*traces, line], 380, **axes)


def curves_figure(searched: Searched) -> go.Figure | None:
    """The score of each trial by epoch: finished ones, stopped ones in grey, and the best one on top. None where no
    trial has a score."""
    metric, lines = searched.search.metric, []
    for trial, run in zip(searched.trials, searched.runs, strict=True):
        points = [(epoch["epoch"], epoch.get(metric, math.nan)) for epoch in run.epochs]
        if points := [(epoch, score) for epoch, score in points if math.isfinite(score)]:
            lines.append((trial, points))
    if not lines:
        return None
    best = max(_finished(searched.trials, metric), key=lambda one: one[1], default=(None, 0.0))[0]
    traces = []
    for name, colour, width in (("stopped", "#808080", 1), ("finished", PALETTE[0], 1), ("best", PALETTE[1], 3)):
        own = [(trial, points) for trial, points in lines if name == ("best" if trial is best else trial.state)]
        gap = [(None, None, None)]  # between two trials of one trace
        joined = [at for trial, points in own for at in [*((*point, trial.number) for point in points), *gap]]
        if joined:
            traces.append(
                go.Scatter(
                    x=[epoch for epoch, _, _ in joined],
                    y=rounded(score for _, score, _ in joined),
                    customdata=[number for _, _, number in joined],
                    name=name,
                    mode="lines+markers",
                    line={"color": colour, "width": width},
                    marker={"size": 4},
                    hovertemplate="trial %{customdata}, epoch %{x}: %{y:.2f}<extra></extra>",
                )
            )
    epochs = (epoch for _, points in lines for epoch, _ in points)
    axes = {"xaxis": {"rangemode": "tozero", "showgrid": False} | whole_axis("epoch", epochs)}
    axes |= {"yaxis": {"title": {"text": f"{metric} (%)"}}}
    return figure(traces, 380, **axes)


def importance_figure(shares: Mapping[Literal["fanova", "ped_anova"], Mapping[str, float]]) -> go.Figure:
    """A bar for each dimension and evaluator, the most important on top; `shares` are evaluator -> path -> share."""
    paths = sorted(
        {path for own in shares.values() for path in own}, key=lambda p: max(s.get(p, 0) for s in shares.values())
    )
    bars = [
        go.Bar(
            x=rounded(own.get(path, 0.0) for path in paths),
            y=[label(short(path)) for path in paths],
            orientation="h",
            name=EVALUATORS[name],
            marker={"color": PALETTE[index]},
            hovertemplate="%{y}: %{x:.2f}<extra>" + EVALUATORS[name] + "</extra>",
        )
        for index, (name, own) in enumerate(shares.items())
    ]
    return figure(
        bars,
        110 + 44 * len(paths),
        barmode="group",
        xaxis={"title": {"text": "share of the importance"}, "range": [0, 1]},
        yaxis={"automargin": True, "showgrid": False},
    )


def against_figure(trials: Sequence[Trial], metric: str, cost: str) -> go.Figure:
    """Finished trials of a search with two objectives, and the Pareto front."""
    points = [(trial, score, trial.costs[cost]) for trial, score in _finished(trials, metric) if cost in trial.costs]
    best = sorted((points[i] for i in front([point[1:] for point in points])), key=lambda point: point[2])
    line = go.Scatter(
        x=rounded(spent for _, _, spent in best),
        y=rounded(score for _, score, _ in best),
        mode="lines",
        name="front",
        line={"color": PALETTE[1], "shape": "hv", "width": 2},
        hoverinfo="skip",
    )
    dots = go.Scatter(
        x=rounded(spent for _, _, spent in points),
        y=rounded(score for _, score, _ in points),
        mode="markers",
        name="finished",
        marker={"color": PALETTE[0], "size": 8},
        customdata=[trial.number for trial, _, _ in points],
        hovertemplate="trial %{customdata}: %{y:.2f} at %{x}<extra></extra>",
    )
    axes = {"xaxis": {"title": {"text": cost}}, "yaxis": {"title": {"text": f"{metric} (%)"}}}
    return figure([dots, line], 380, **axes)


def section(report: Report) -> Section | None:
    """For each search: history, importances and parallel coordinates."""
    blocks = [block for index, searched in enumerate(report.searched) for block in _blocks(searched, index)]
    return Section("search", "Search", tuple(blocks)) if blocks else None


def _blocks(searched: Searched, index: int) -> list[Markup]:
    search, trials = searched.search, searched.trials
    if not _finished(trials, search.metric):
        return []
    of = f" of {searched.arm}" if searched.arm else ""
    counts = {state: sum(trial.state == state for trial in trials) for state in ("finished", "stopped", "failed")}
    ended = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    said = f"The search{of}: {len(trials)} of {counted(search.trials, 'trial')} ({ended}), by {search.metric}."
    beside = [plot(f"history-{index}", history_figure(trials, search.metric), said)]
    if (drawn := curves_figure(searched)) is not None:
        beside.append(plot(f"trials-{index}", drawn, f"Learning curves of the trials{of}, by {search.metric}."))
    if search.against:
        said = f"Both objectives of the search{of}."
        beside.append(plot(f"against-{index}", against_figure(trials, search.metric, search.against), said))
    if shares := _importances(searched):
        said = f"Importance of dimensions{of} over finished trials, by two evaluators. If they differ, trust neither. "
        said += "fANOVA leaves out dimensions that only some trials have."
        beside.append(plot(f"importance-{index}", importance_figure(shares), said))
    blocks = [side_by_side(beside)]
    if (drawn := parallel_figure(searched.study, trials)) is not None:
        said = f"Every finished trial{of} as a line down to its score; darker is better, and the best is orange. "
        said += "A line without a dot on an axis: the dimension did not apply to the trial."
        blocks.append(plot(f"parallel-{index}", drawn, said))
    return blocks


def _importances(searched: Searched) -> dict[Literal["fanova", "ped_anova"], Mapping[str, float]]:
    """Evaluator -> path -> share; empty with too few finished trials, or without Optuna, of which a note tells."""
    if missing("optuna"):
        return {}
    from orchestrator.search.importance import importances  # Optuna is slow to import

    return {name: own for name in EVALUATORS if (own := importances(searched.study, searched.history, name))}


def _finished(trials: Sequence[Trial], metric: str) -> list[tuple[Trial, float]]:
    """Finished trials with their scores."""
    return _scored([trial for trial in trials if trial.state == "finished"], metric)


def _scored(trials: Sequence[Trial], metric: str) -> list[tuple[Trial, float]]:
    """The trials that have a finite score, with it."""
    scores = [(trial, trial.metrics.get(metric, math.nan)) for trial in trials]
    return [(trial, score) for trial, score in scores if math.isfinite(score)]
