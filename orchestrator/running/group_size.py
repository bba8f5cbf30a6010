"""How many workers a group gets where a run may have more or fewer. Pure functions of the machines as Ray has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

WORKERS = "workers"
"""In what Tune is told of an epoch: the number of workers of the run's group. No metric."""
RESTART_S = 30.0
"""What the start of a group costs, in seconds."""


def places(machines: Iterable[Mapping[str, float]], need: Mapping[str, float]) -> int:
    """The workers that machines with these resources have room for; one needs `need`, and cannot span two machines."""
    amounts = {name: amount for name, amount in need.items() if amount}
    # Ray counts in ten-thousandths: 3 x 0.1 fit into 0.3
    return sum(
        min(round(machine.get(name, 0) * 10_000) // round(amount * 10_000) for name, amount in amounts.items())
        for machine in machines
    )


def largest(sizes: Sequence[int], room: int) -> int:
    """The largest of the sizes, which ascend, that `room` places hold; the smallest where they hold none."""
    return max((size for size in sizes if size <= room), default=sizes[0])


def pays(workers: int, more: int, left_s: float) -> bool:
    """Whether a run that takes `left_s` seconds more ends sooner with a new group of `more` workers, which starts."""
    return left_s * (1 - workers / more) > RESTART_S


def share(sizes: Sequence[int], free: int, there: int, at_once: int | str) -> int:
    """The size of a group that starts: `free` of `there` places are free, and so many runs train at once, which share
    them equally. Where that number is not known (`auto`), as many train as there is room for: each starts small."""
    equal = there // at_once if isinstance(at_once, int) else 0
    return largest(sizes, min(free, equal))


def others_wait(groups: Iterable[Mapping[str, Any]], growth: str) -> bool:
    """Whether a run waits for its places, by Ray's table of placement groups. Those of this name do not count: they are
    of runs that train and might have more."""
    return any(group["state"] == "PENDING" and group["name"] != growth for group in groups)
