"""Amounts of memory and CPUs as Kubernetes and Docker write them."""

from __future__ import annotations

import re
from typing import Any

_UNITS = {"": 1.0, "n": 1e-9, "u": 1e-6, "m": 1e-3}
_UNITS |= {unit: 1000.0**power for power, unit in enumerate("kMGTPE", 1)}
_UNITS |= {f"{unit}i": 1024.0**power for power, unit in enumerate("KMGTPE", 1)}
_DOCKER = {unit: 1024.0**power for power, unit in enumerate("bkmgt")}


def amount(quantity: Any) -> float | None:
    """A Kubernetes quantity (`500m`, `16Gi`, `1e9`, 2) as a number; None where it is absent or none.

    Source: Kubernetes API reference, Quantity.
    """
    found = re.fullmatch(r"\+?(\d+\.?\d*|\.\d+)(?:[eE]([+-]?\d{1,2})|([numkMGTPE]|[KMGTPE]i)?)", str(quantity))
    if found is None or isinstance(quantity, bool):
        return None
    return float(found[1]) * (10.0 ** int(found[2]) if found[2] else _UNITS[found[3] or ""])


def docker_bytes(size: str) -> float | None:
    """A size as Docker's `--shm-size` takes it (`64m`, `0.5g`, `512MB`, `67108864`), in bytes; None where it is none.

    Source: RAMInBytes of github.com/docker/go-units.
    """
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+) ?(?:([kmgtb])(?:i?b)?)?", size.lower())
    return None if found is None else float(found[1]) * _DOCKER[found[2] or "b"]
