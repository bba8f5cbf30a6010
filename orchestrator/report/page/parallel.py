"""Parallel coordinates: every finished trial of a search as a line through its values, down to its score.

Axes are horizontal, so that they fit on a phone. Plotly's own trace for this uses WebGL, cannot leave out a dimension
that does not apply to a trial, and does not print.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import plotly.graph_objects as go

from ablations.study.arms import short
from ablations.study.plan import space
from ablations.study.schema import Study
from ablations.study.search import Dimension
from ablations.study.trial import Trial
from orchestrator.report.page.parts import figure, label, rounded

AXIS = 64
"""Pixels from one axis to the next."""
BINS = ("#C6DBEF", "#9ECAE1", "#6BAED6", "#3182BD", "#08519C")
"""Colours of the quintiles of trials, from the worst to the best. ColorBrewer's Blues."""
BEST = "#D55E00"


def parallel_figure(study: Study, trials: Sequence[Trial]) -> go.Figure | None:
    """The figure, or None with fewer than two finished trials. Dimensions that did not apply to a trial have no dot."""
    search = study.search
    assert search is not None
    scored = [(trial.metrics.get(search.metric, math.nan), trial) for trial in trials if trial.state == "finished"]
    ranked = sorted(((s, t) for s, t in scored if math.isfinite(s)), key=lambda pair: (pair[0], -pair[1].number))
    if len(ranked) < 2:
        return None
    dimensions = space(study)
    places = {path: _placing(dimension) for path, dimension in dimensions.items()}
    low, high = ranked[0][0], ranked[-1][0]
    last = len(dimensions)
    lines: dict[int, tuple[list[float | None], list[float | None], list[str]]] = {}
    for rank, (score, trial) in enumerate(ranked):
        best = rank == len(ranked) - 1
        xs, ys, texts = lines.setdefault(len(BINS) if best else rank * len(BINS) // len(ranked), ([], [], []))
        stops = [(y, places[path](trial.values[path])) for y, path in enumerate(dimensions) if path in trial.values]
        stops.append((last, (score - low) / (high - low) if high > low else 0.5))
        xs += [*(x for _, x in stops), None]
        ys += [*(y for y, _ in stops), None]
        texts += [f"trial {trial.number}: {score:.2f}"] * (len(stops) + 1)
    traces = [
        go.Scatter(
            x=rounded(xs),
            y=ys,
            text=texts,
            mode="lines+markers",
            line={"color": BEST if fifth == len(BINS) else BINS[fifth], "width": 3 if fifth == len(BINS) else 1.5},
            marker={"size": 5},
            hovertemplate="%{text}<extra></extra>",
            showlegend=False,
        )
        for fifth, (xs, ys, texts) in sorted(lines.items())
    ]
    ends = [_ticks(dimension) for dimension in dimensions.values()] + [[(0.0, f"{low:.2f}"), (1.0, f"{high:.2f}")]]
    names = [*(short(path) for path in dimensions), search.metric]
    notes = [_note(0.0, y, 10, f"<b>{label(name)}</b>", "left") for y, name in enumerate(names)]
    notes += [
        _note(x, y, -10, label(text), "left" if x == 0 else "right" if x == 1 else "center")
        for y, own in enumerate(ends)
        for x, text in own
    ]
    rails = [
        {"type": "line", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": {"width": 1, "color": "#808080"}, "layer": "below"}
        for y in range(last + 1)
    ]
    return figure(
        traces,
        40 + AXIS * (last + 1),
        margin={"l": 10, "r": 10, "t": 8, "b": 8},
        annotations=notes,
        shapes=rails,
        xaxis={"range": [-0.01, 1.01], "visible": False, "fixedrange": True},
        yaxis={"range": [last + 0.5, -0.5], "visible": False, "fixedrange": True},
    )


def _placing(dimension: Dimension) -> Callable[[Any], float]:
    """Maps a value to its axis, 0 to 1: choices by index, ranges linearly or logarithmically as sampled."""
    if dimension.kind == "choice":
        names = list(dimension.choices)
        return lambda value: names.index(value) / max(len(names) - 1, 1)
    scale = math.log if dimension.kind == "log" else float
    low, high = scale(dimension.low), scale(dimension.high)
    return lambda value: (scale(value) - low) / (high - low)


def _ticks(dimension: Dimension) -> list[tuple[float, str]]:
    if dimension.kind == "choice":
        place = _placing(dimension)
        return [(place(name), name) for name in dimension.choices]
    return [(0.0, f"{dimension.low:g}"), (1.0, f"{dimension.high:g}")]


def _note(x: float, y: int, shift: int, text: str, anchor: str) -> dict[str, Any]:
    return {
        "x": x,
        "y": y,
        "yshift": shift,
        "xanchor": anchor,
        "text": text,
        "showarrow": False,
        "font": {"size": 12},
    }
