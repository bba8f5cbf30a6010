"""Failed GPUs: an actor without work holds each, so that Ray gives it to no further run of any study.

Ray gives out a machine's GPUs as it likes, and the one that fails its runs is always the first that is free. The
process whose GPU has failed asks for as much as it has before it ends; where the actor gets another GPU, the driver
starts more of them until one has that GPU, and ends the others. It ends itself once no driver has asked for a while.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

NAMESPACE = "transkd"
SILENT_S = 120.0
"""An actor ends once it has not been asked for so many seconds: its driver has ended."""
ANSWER_S = 0.2
ROUNDING = 1e-3
"""Ray counts GPUs in ten-thousandths."""


class Holder:
    """Has GPUs and does nothing with them."""

    def __init__(self) -> None:
        self._asked = time.monotonic()
        threading.Thread(target=self._end_idle, daemon=True).start()

    def gpus(self) -> list[str]:
        """Ray's ids of the GPUs that it has."""
        self._asked = time.monotonic()
        return own_gpus()

    def _end_idle(self) -> None:
        while time.monotonic() - self._asked < SILENT_S:
            time.sleep(SILENT_S / 10)
        ray.kill(ray.get_runtime_context().current_actor)


def own_gpus() -> list[str]:
    """Ray's ids of the GPUs that this process was given, sorted."""
    return sorted(map(str, ray.get_gpu_ids()))


def hold(node: str, gpus: list[str], amount: float, number: int = 0) -> Any:
    """The actor of this `number` that asks for `amount` GPUs of Ray's machine `node` because its `gpus` failed."""
    return (
        ray.remote(Holder)
        .options(
            name=f"transkd-failed-gpu/{node}/{'+'.join(gpus)}/{number}",
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            num_gpus=amount,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        )
        .remote()
    )


class MachineHolds:
    """The driver's part for the failed GPUs of one machine."""

    def __init__(self, node: str) -> None:
        self.node = node
        self._begun: set[tuple[str, ...]] = set()
        self._holders: list[tuple[Any, list[str], float, int]] = []
        """Each actor, and what it was started by."""

    def look(self, failed: Mapping[tuple[str, ...], float], there: float) -> set[str]:
        """The GPUs that are held as a whole by now. While a failed one is not, a further actor asks for as much, until
        they could have all of the machine's.

        `failed`: the GPUs of each process that failed -> the amount that it had; `there`: the machine's GPUs.
        """
        for gpus in failed.keys() - self._begun:
            self._begun.add(gpus)
            self._start(gpus, failed[gpus], 0)  # that of the process itself, where it came to start it
        had = [self._gpus(place) for place in range(len(self._holders))]
        parts = Counter[str]()
        for (_, _, amount, _), ids in zip(self._holders, had, strict=True):
            parts.update(dict.fromkeys(ids or (), min(amount, 1)))
        held = {gpu for gpu, part in parts.items() if part > 1 - ROUNDING}
        missing = [gpus for gpus in failed if not held.issuperset(gpus)]
        if missing and None not in had and sum(amount for *_, amount, _ in self._holders) < there:
            self._start(missing[0], failed[missing[0]], len(had))
        elif not missing:
            self._keep({gpu for gpus in failed for gpu in gpus}, had)
        return held

    def _keep(self, wanted: set[str], had: list[list[str] | None]) -> None:
        """End the actors that hold none of these GPUs."""
        kept = []
        for each, gpus in zip(self._holders, had, strict=True):
            if wanted.isdisjoint(gpus or ()):
                ray.kill(each[0])
            else:
                kept.append(each)
        self._holders = kept

    def _start(self, gpus: tuple[str, ...], amount: float, number: int) -> None:
        self._holders.append((hold(self.node, list(gpus), amount, number), list(gpus), amount, number))

    def _gpus(self, place: int) -> list[str] | None:
        """Those of an actor; None while it waits for some. One that has ended is started again."""
        holder, gpus, amount, number = self._holders[place]
        try:
            return ray.get(holder.gpus.remote(), timeout=ANSWER_S)
        except RayActorError:
            self._holders[place] = (hold(self.node, gpus, amount, number), gpus, amount, number)
        except GetTimeoutError:
            pass
        return None
