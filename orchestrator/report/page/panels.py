"""Panels: predictions of every arm for the same validation images, next to the ground truth."""

from __future__ import annotations

import base64
import io
import math
import warnings

from markupsafe import Markup
from PIL import Image

from orchestrator.report.page.data import Report
from orchestrator.report.page.parts import Section
from orchestrator.state.study_state import StudyRun
from trainer.data import facts_of

WIDTH = 960
"""Maximum width of a tile in pixels, which keeps the page small. Tiles are shown small, and large after a click."""
PARTS = ("image", "truth", "prediction")
"""The parts of a run's panel from left to right, with white gaps; each validation image is a row."""
MOST_COLUMNS = 9
"""Pictures in one row of a wide window."""


def section(report: Report) -> Section | None:
    """A block for each validation image: image, ground truth, and the prediction of one seed of each row."""
    tiles: dict[str, list[dict[str, Image.Image]]] = {}
    seeds, damaged = {}, []
    for arm in (arm for arm in (*report.teachers, *report.arms) if arm in report.panels):
        member = next(m for m in report.groups[arm] if m.run.run_id == report.panels[arm].parent.name)
        if found := _tiles(report, arm, member):
            tiles[arm], seeds[arm] = found, member.plan.seed
        else:
            damaged.append(f"{arm} seed {member.plan.seed}")
    lost = f" The panels of {', '.join(damaged)} are damaged and left out." if damaged else ""
    if not tiles:
        return (
            Section("panels", "Predictions", (Markup('<p class="notes">{}</p>').format(lost.strip()),))
            if lost
            else None
        )
    first = next(iter(tiles.values()))
    rows = []
    for number in range(len(first)):
        shown = [("image", _inline(first[number]["image"], "JPEG")), ("truth", _inline(first[number]["truth"], "PNG"))]
        shown += [(arm, _inline(own[number]["prediction"], "PNG")) for arm, own in tiles.items() if number < len(own)]
        rows.append(
            Markup('<div class="panels" style="--columns:{}">{}</div>').format(
                _columns(len(shown)),
                Markup("").join(
                    Markup(
                        '<figure><button type="button" title="larger"><img src="{}" alt="{}"></button>'
                        "<figcaption>{}</figcaption></figure>"
                    ).format(source, f"validation image {number + 1}: {name}", name)
                    for name, source in shown
                ),
            )
        )
    used = sorted(set(seeds.values()))
    said = (
        "Validation images spread evenly over the split, at the end of training; seed "
        f"{', '.join(map(str, used))} of each arm. Click on a picture to enlarge it.{report.of_all}{lost}"
    )
    return Section("panels", "Predictions", (*rows, *_keys(report), Markup('<p class="notes">{}</p>').format(said)))


def _columns(pictures: int) -> int:
    """Of a wide window: as few rows as can be, equally full."""
    return math.ceil(pictures / math.ceil(pictures / MOST_COLUMNS))


def _keys(report: Report) -> list[Markup]:
    """The colour of each class, for each data set of ours that pictures are of: a report runs no plugin."""
    configs = [m.plan.config for arm in report.panels for m in report.groups[arm][:1]]
    own = {name for config in configs for p in config.used_plugins for name in p.entries.get("DATASETS", ())}
    shown = [config.data for config in configs if config.data.name not in own]
    known = dict.fromkeys(facts_of(data)[:2] for data in sorted(shown, key=lambda data: data.name))
    return [
        Markup('<ul class="key">{}</ul>').format(
            Markup("").join(
                Markup('<li><span style="background:#{:02x}{:02x}{:02x}"></span>{}</li>').format(*colour, name)
                for name, colour in zip((*classes, "no label"), (*palette[: len(classes)], (0, 0, 0)), strict=True)
            )
        )
        for classes, palette in known
    ]


def _tiles(report: Report, arm: str, member: StudyRun) -> list[dict[str, Image.Image]]:
    """The panel cut into its parts; empty where its file is damaged. Tiles have the arm's input size; the rest of the
    width are the gaps."""
    height, width = member.plan.config.data.size
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(report.panels[arm], formats=["PNG"]) as file:
                panel = file.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return []  # Pillow's errors for files that are no images, cut off, or too large
    gap = (panel.width - len(PARTS) * width) // (len(PARTS) - 1)
    if gap < 0:
        return []
    return [
        {part: panel.crop((x := i * (width + gap), y, x + width, y + height)) for i, part in enumerate(PARTS)}
        for y in range(0, panel.height - height + 1, height + gap)
    ]


def _inline(tile: Image.Image, kind: str) -> str:
    """A data URI. Photographs are resampled smoothly, label maps by nearest neighbour: mixed colours would be other
    classes."""
    size = (min(WIDTH, tile.width), round(tile.height * min(WIDTH, tile.width) / tile.width))
    out = io.BytesIO()
    if kind == "JPEG":
        tile.resize(size, Image.Resampling.LANCZOS).save(out, kind, quality=85)
    else:
        tile.resize(size, Image.Resampling.NEAREST).quantize(256).save(out, kind, optimize=True)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"
