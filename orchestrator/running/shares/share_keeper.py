"""ShareKeeper: the actor at which the drivers of a Ray cluster say what they want, and hear how much each may have.

One per cluster, of no CPU, on its head. It ends once no driver has been heard of for a while.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.running.shares.fair_shares import Demand, shares, why_waiting

NAME = "transkd-shares-2"
"""Drivers that speak otherwise need another name: versions may meet on a cluster."""
NAMESPACE = "transkd"
SILENT_S = 20.0
"""A driver that is silent for so long is taken for dead; after as long without any driver the keeper ends."""


@dataclass
class _Driver:
    demand: Demand
    grows_to: dict[str, float]
    heard: float
    promised: int = 0
    """Runs in flight that it was last told of: until it speaks again it may start as many."""
    began: int = 0
    """When it last started a run, counted in starts of all drivers; 0 before its first."""


class ShareKeeper:
    """What the drivers of a cluster have and want. `capacity()`: the resources of its machines, by Ray's names."""

    def __init__(
        self, capacity: Callable[[], Mapping[str, float]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._capacity = capacity
        self._clock = clock
        self._drivers: dict[str, _Driver] = {}
        self._starts = 0
        self._busy = clock()
        """When there was a driver last."""
        self._changing = threading.Lock()

    def ask(self, driver: str, demand: Mapping[str, Any], grows_to: Mapping[str, float]) -> tuple[int, str]:
        """The runs that a driver may have in flight, and why it may not have more; empty where it may.

        `demand`: the fields of `Demand`. `grows_to`: the resources up to which an autoscaler may grow, by its spec.
        """
        with self._changing:
            before = self._drivers.get(driver)
            now = _Driver(Demand(**demand), dict(grows_to), self._clock(), began=before.began if before else 0)
            if now.demand.in_flight > (before.demand.in_flight if before else 0):
                self._starts += 1
                now.began = self._starts
            self._drivers[driver] = now
            self._forget()
            if len(self._drivers) == 1:
                now.promised = now.demand.wanted
                return now.promised, ""
            return self._share(driver)

    def _share(self, driver: str) -> tuple[int, str]:
        capacity = self._room()
        waited = sorted(self._drivers, key=lambda name: self._drivers[name].began)
        demands = {name: self._promised(name) for name in waited}
        demands[driver] = self._drivers[driver].demand
        may = dict(zip(waited, shares(capacity, list(demands.values())), strict=True))
        own = self._drivers[driver]
        own.promised = may[driver]
        if own.promised >= own.demand.wanted:
            return own.promised, ""
        others = [demands[name]._replace(in_flight=may[name]) for name in waited if name != driver]
        return own.promised, why_waiting(own.demand.need, capacity, others)

    def _promised(self, name: str) -> Demand:
        demand = self._drivers[name].demand
        return demand._replace(in_flight=max(demand.in_flight, self._drivers[name].promised))

    def _room(self) -> dict[str, float]:
        room = dict(self._capacity())
        for driver in self._drivers.values():
            for name, most in driver.grows_to.items():
                room[name] = max(room.get(name, 0), most)
        return room

    def someone_waits(self) -> bool:
        """Whether a study wants more runs than its share holds."""
        with self._changing:
            self._forget()
            return any(each.promised < each.demand.wanted for each in self._drivers.values())

    def leave(self, driver: str) -> None:
        """A driver has ended."""
        with self._changing:
            self._drivers.pop(driver, None)

    def is_idle(self) -> bool:
        """Whether no driver has been heard of for `SILENT_S`."""
        with self._changing:
            self._forget()
            return self._clock() - self._busy > SILENT_S

    def _forget(self) -> None:
        now = self._clock()
        self._drivers = {name: each for name, each in self._drivers.items() if now - each.heard <= SILENT_S}
        if self._drivers:
            self._busy = now


class KeeperActor(ShareKeeper):
    """The same as an actor of Ray, which ends itself."""

    def __init__(self) -> None:
        import ray

        super().__init__(ray.cluster_resources)
        threading.Thread(target=self._end_idle, daemon=True).start()

    def _end_idle(self) -> None:
        import ray

        while not self.is_idle():
            time.sleep(SILENT_S / 10)
        ray.kill(ray.get_runtime_context().current_actor)
