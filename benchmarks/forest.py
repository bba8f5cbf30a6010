"""Draw the forest plot of a study as a picture: python benchmarks/forest.py STUDY_OR_BUNDLE PICTURE [STORE].

Each row is a contrast: rings are the differences of single seeds, the symbol is their mean, and the bar is the interval
of the differences that the test does not reject. The band is the equivalence margin. The report's page has the same
plot, which can be hovered over; this one is for documents. Needs matplotlib.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

from orchestrator.report.page.data import report_of
from orchestrator.report.page.forest import Difference, differences
from orchestrator.report.page.parts import VERDICTS
from orchestrator.state.study_state import StudyState
from orchestrator.store.ledger import Ledger
from orchestrator.verbs.options import opened

matplotlib.use("Agg")
from matplotlib import pyplot

SYMBOLS = {"triangle-up": "^", "triangle-down": "v", "square": "s", "circle": "o", "circle-open": "o"}
"""plotly's names of symbols, as matplotlib calls them."""


BELOW = 0.22
"""Rows between a contrast's bar and its seeds."""


def draw(rows: list[Difference], margin: float | None, path: Path) -> None:
    """Write the picture, in the format that the path's ending names."""
    figure, axes = pyplot.subplots(figsize=(9, 0.9 + 0.42 * len(rows)), layout="constrained")
    if margin:
        axes.axvspan(-margin, margin, color="#808080", alpha=0.15, linewidth=0)
    axes.axvline(0, color="#808080", linewidth=1)
    drawn = set()
    for place, row in enumerate(rows):
        colour, symbol = VERDICTS[row.verdict]
        axes.plot(
            row.seeds,
            [place + BELOW] * len(row.seeds),
            "o",
            markerfacecolor="none",
            markeredgecolor="#999999",
            markersize=4,
        )
        axes.plot([row.low, row.high], [place, place], color=colour, linewidth=2)
        label = None if row.verdict in drawn else row.verdict
        axes.plot(row.mean, place, SYMBOLS[symbol], color=colour, markersize=8, label=label)
        drawn.add(row.verdict)
    axes.set_yticks(range(len(rows)), [f"{row.arm} against {row.reference}" for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("difference in points of mIoU; rings: single seeds")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper center", ncols=len(drawn), frameon=False)
    figure.savefig(path, dpi=110)


def main(study: str, picture: str, store: str | None = None) -> None:
    """Read the study's table and draw its contrasts."""
    with opened(study, Path(store) if store else None, None) as (loaded, where):
        report = report_of(StudyState(loaded, Ledger(where.ledger)), where)
        draw(differences(report), report.study.margin, Path(picture))


if __name__ == "__main__":
    main(*sys.argv[1:])
