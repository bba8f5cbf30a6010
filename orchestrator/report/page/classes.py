"""Classes: the IoU of each class by arm, and how it differs from the arm's reference, as two heat maps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from ablations.statistics.paired import mean_std
from orchestrator.report.page.data import Report
from orchestrator.report.page.parts import Section

CLASS = "val/iou/"
SEQUENTIAL = ((247, 251, 255), (107, 174, 214), (8, 48, 107))
"""From 0 to 100 %, light to dark, readable in print too. ColorBrewer's Blues."""
DIVERGING = ((213, 94, 0), (255, 255, 255), (0, 114, 178))
"""From negative to positive differences: Okabe and Ito's vermillion and blue."""

Map = dict[str, dict[str, float]]
"""Class -> arm -> points."""


def class_means(report: Report) -> Map:
    """The mean over finished seeds, at the last epoch."""
    found: Map = {}
    for arm in (*report.teachers, *report.arms):
        ended = _ended(report, arm).values()
        for name in dict.fromkeys(name for classes in ended for name in classes):
            known = [classes[name] for classes in ended if math.isfinite(classes.get(name, math.nan))]
            found.setdefault(name, {})[arm] = mean_std(known)[0]
    return found


def class_differences(report: Report) -> Map:
    """Each arm minus the first arm that it is compared with, over the seeds that both have, as in the table."""
    reference: dict[str, str] = {}
    for arm, other in report.study.pairs:
        reference.setdefault(arm, other)
    found: Map = {}
    for arm in (arm for arm in report.arms if arm in reference):
        ours, theirs = _ended(report, arm), _ended(report, reference[arm])
        pairs = [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]
        for name in dict.fromkeys(name for one, _ in pairs for name in one):
            differences = [one[name] - other.get(name, math.nan) for one, other in pairs]
            found.setdefault(name, {})[arm] = mean_std([value for value in differences if math.isfinite(value)])[0]
    return found


def _ended(report: Report, arm: str) -> dict[int, dict[str, float]]:
    """Seed -> class -> points at the last epoch, of the seeds that the table counts."""
    return {
        member.plan.seed: {
            name.removeprefix(CLASS): value for name, value in member.run.last.items() if name.startswith(CLASS)
        }
        for member in report.groups[arm]
        if member.plan.seed in report.scores[arm]
    }


def section(report: Report) -> Section | None:
    """Both maps."""
    means = class_means(report)
    if not means:
        return None
    blocks = [_map(means, f"IoU (%) at the last epoch, mean over seeds.{report.of_all}", 0.0, 100.0, SEQUENTIAL, "")]
    differences = class_differences(report)
    if most := max((abs(v) for row in differences.values() for v in row.values() if math.isfinite(v)), default=0.0):
        said = "Difference to the arm it is first compared with, in points, over the seeds that both have. "
        said += "Differences of single classes are not tested."
        blocks.append(_map(differences, said, -most, most, DIVERGING, "+"))
    return Section("classes", "Classes", (Markup('<div class="maps">{}</div>').format(Markup("").join(blocks)),))


def _map(values: Map, caption: str, low: float, high: float, colours: Sequence[tuple[int, ...]], sign: str) -> Markup:
    arms = list(dict.fromkeys(arm for row in values.values() for arm in row))
    head = Markup("").join(Markup('<th scope="col"><span>{}</span></th>').format(arm) for arm in arms)
    body = Markup("\n").join(
        Markup('<tr><th scope="row">{}</th>{}</tr>').format(
            name, Markup("").join(_cell(row, arm, low, high, colours, sign) for arm in arms)
        )
        for name, row in values.items()
    )
    return Markup(
        '<figure><figcaption>{}</figcaption><div class="scroll"><table class="heat">\n'
        "<thead><tr><td></td>{}</tr></thead>\n<tbody>\n{}\n</tbody></table></div></figure>"
    ).format(caption, head, body)


def _cell(
    row: Mapping[str, float], arm: str, low: float, high: float, colours: Sequence[tuple[int, ...]], sign: str
) -> Markup:
    value = row.get(arm, math.nan)
    if not math.isfinite(value):
        return Markup("<td>–</td>")
    red, green, blue = _between(colours, (value - low) / (high - low))
    # black or white text by relative luminance (WCAG 2, without gamma)
    ink = "#111" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 128 else "#fff"
    near = round(value, 1)
    shown = f"{near:{sign}.1f}" if near else "0.0"
    return Markup('<td style="background:#{:02x}{:02x}{:02x};color:{}">{}</td>').format(red, green, blue, ink, shown)


def _between(colours: Sequence[tuple[int, ...]], share: float) -> tuple[int, int, int]:
    """The colour at a share of the way along equally spaced ones."""
    place = min(max(share, 0.0), 1.0) * (len(colours) - 1)
    first = min(int(place), len(colours) - 2)
    red, green, blue = (
        round(a + (b - a) * (place - first)) for a, b in zip(colours[first], colours[first + 1], strict=True)
    )
    return red, green, blue
