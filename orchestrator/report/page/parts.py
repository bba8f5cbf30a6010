"""Building blocks of the page's sections, and the style that all figures share."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#808080")
"""Okabe and Ito, Color Universal Design (2008): distinguishable for colour-blind readers. Without their yellow and
black, which are hard to see on a light and on a dark page."""
DASHES = ("solid", "dash", "dot", "dashdot")
VERDICTS = {
    "better": ("#009E73", "triangle-up"),
    "worse": ("#D55E00", "triangle-down"),
    "equivalent": ("#0072B2", "square"),
    "undecided": ("#808080", "circle"),
    "not yet": ("#808080", "circle-open"),
}
"""Colour and symbol of each verdict."""


@dataclass(frozen=True)
class Section:
    """A section of the page, with its anchor and title for the table of contents."""

    anchor: str
    title: str
    blocks: tuple[Markup, ...]


def style(index: int) -> tuple[str, str]:
    """Colour and dash of the arm at this index: different for 28 arms."""
    return PALETTE[index % len(PALETTE)], DASHES[index // len(PALETTE) % len(DASHES)]


def shaded(colour: str, alpha: float) -> str:
    """`#0072B2` as `rgba(0,114,178,alpha)`."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:g})"


def rounded(values: Iterable[float | None]) -> list[float | None]:
    """Values with six digits, which keeps the page small; None (a gap) where a value is not finite."""
    return [float(f"{v:.6g}") if v is not None and math.isfinite(v) else None for v in values]


def label(text: str) -> str:
    """Text for a figure, escaped as Plotly interprets tags."""
    return html.escape(text, quote=False)


def figure(traces: Sequence[Any], height: int, **layout: Any) -> go.Figure:
    """A figure in the page's style. page.js sets the colours of text and lines for the light or dark theme."""
    shared = {
        "template": "none",
        "height": height,
        "margin": {"l": 48, "r": 12, "t": 12, "b": 44},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hovermode": "closest",
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
    }
    return go.Figure(list(traces), {**shared, **layout})


def whole_axis(title: str, values: Iterable[float]) -> dict[str, Any]:
    """The axis of a count, such as epochs: ten ticks or fewer, all at whole numbers."""
    least = max(values, default=0) / 10
    step = next(step for power in range(12) for one in (1, 2, 5) if (step := one * 10**power) >= least)
    return {"title": {"text": title}, "tick0": 0, "dtick": step, "tickformat": ",d"}


def plot(anchor: str, drawn: go.Figure, caption: str) -> Markup:
    """A figure and its caption. The figure's data is JSON in the page, with `<` escaped."""
    data = drawn.to_json(engine="json").replace("<", "\\u003c")
    return Markup(
        '<figure><div class="plot" id="{0}" role="img" aria-label="{1}" style="height:{2}px"></div>'
        '<script type="application/json">{3}</script><figcaption>{1}</figcaption></figure>'
    ).format(anchor, caption, drawn.layout.height, Markup(data))


def side_by_side(blocks: Iterable[Markup]) -> Markup:
    """Figures next to each other where the width allows it."""
    return Markup('<div class="beside">{}</div>').format(Markup("").join(blocks))
