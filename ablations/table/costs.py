"""Costs: the cost of each row's deployed student, and footnotes on how it is counted or measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ablations.study.plan import Run
from ablations.study.schema import Study
from trainer.config import parse

MEASURED: dict[str, Callable[[list[float]], float]] = {"latency_ms": statistics.median, "peak_mib": max}
"""Measured costs: name -> how a row combines the values of its runs. They vary with the machine and its load, so they
are shown only where arms deploy different networks that were all measured on one kind of hardware. For one network, the
differences would be noise, and the same study would print different tables."""


def costs_of(arms: Mapping[str, Sequence[Run]], costs: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By row: `params_m`, `gmacs_paper`, `gmacs`, `latency_ms` (median over its runs), `peak_mib` (maximum) and the
    `hardware` they were measured on. `costs` are by `Run.key`."""
    found: dict[str, dict[str, Any]] = {}
    for arm, group in arms.items():
        known = [costs[run.key] for run in group if run.key in costs]
        if not known:
            continue
        row: dict[str, Any] = {name: known[0].get(name) for name in ("params_m", "gmacs_paper", "gmacs")}
        for name, pick in MEASURED.items():
            values = [cost[name] for cost in known if name in cost]
            row[name] = pick(values) if len(values) == len(known) else None
        row["hardware"] = sorted({str(cost.get("hardware", "")) for cost in known})
        found[arm] = row
    hardware = {name for row in found.values() for name in row["hardware"]}
    for name in MEASURED:
        if not _networks_differ(arms) or len(hardware) != 1 or any(row[name] is None for row in found.values()):
            for row in found.values():
                row[name] = None
    return found


def _networks_differ(arms: Mapping[str, Sequence[Run]]) -> bool:
    """Whether arms deploy different networks, or one at different image sizes; teachers are not deployed."""
    configs = [group[0].config for group in arms.values() if group[0].role == "arm"]
    return len({(config.student.name, config.data.size) for config in configs}) > 1


ALL_PRODUCTS = (
    "GMACs (all) are of the same image, with all products that are computed, those of attention too. They can be below "
    "GMACs (paper), as the head's linear maps are folded into one: the same result by fewer products."
)


def cost_notes(study: Study, arms: Mapping[str, Sequence[Run]], found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence for each cost column, and one where latency is left out because hardware differs."""
    if not found:
        return []
    height, width = parse(study.base).data.size
    image = f"of one {height}x{width} image"
    notes = []
    if any(row["gmacs_paper"] is not None for row in found.values()):
        notes.append(f"GMACs (paper) are {image}, by the paper's convention, which does not count attention products.")
    if any(row["gmacs"] is not None for row in found.values()):
        notes.append(ALL_PRODUCTS)
    hardware = sorted({name for row in found.values() for name in row["hardware"]})
    if not _networks_differ(arms):
        return notes
    if any(row[name] is not None for row in found.values() for name in MEASURED):
        notes.append(f"ms and MiB are the median latency and the peak memory {image} on {hardware[0]}.")
    elif len(hardware) > 1:
        notes.append(f"Latency is left out, as rows were measured on different hardware: {' and '.join(hardware)}.")
    return notes
