"""Growth: the places that a run may have beside those of its workers, asked of Ray until it moves into them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import ray
from ray._private.state import available_resources_per_node
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group

from orchestrator.running.group_size import largest, others_wait, pays, places, share
from orchestrator.running.shares.share import someone_waits

STALE_S = 2.0
"""So much later Ray knows which machines are lost, and what an ended group has given back."""
LOOK_S = 5.0
"""So often it is looked whether there are more places, or others wait for them."""
SETTLE_S = 15.0
"""Places count when they have been there for so many seconds: a machine may go again, and the next run take them."""
NAME = "transkd-growth"
"""Of the placement groups by which runs ask for more places."""


def first_size(job: Mapping[str, Any], machines: Mapping[str, str], below: int | None = None) -> int:
    """The number of workers with which a run starts, or starts again: as many of its `group_sizes` as have room.

    `machines`: Ray's label selector of those that may be taken. `below`: a number that had no room after all.
    """
    sizes = [size for size in job["group_sizes"] if below is None or size < below] or job["group_sizes"][:1]
    if len(sizes) == 1:
        return int(sizes[0])
    time.sleep(STALE_S)
    there = [node["Resources"] for node in ray.nodes() if node["Alive"] and _may_be_taken(node["NodeID"], machines)]
    return share(sizes, _free(job, machines), places(there, job["resources"]), job["at_once"])


def _free(job: Mapping[str, Any], machines: Mapping[str, str]) -> int:
    """The workers that have room beside all that runs now."""
    free = available_resources_per_node().items()
    return places([amounts for node, amounts in free if _may_be_taken(node, machines)], job["resources"])


def _may_be_taken(node_id: str, machines: Mapping[str, str]) -> bool:
    return node_id not in machines.get("ray.io/node-id", "")


class Growth:
    """What a run with `job["workers"]` workers may grow into. Asking for places makes an autoscaler start machines."""

    def __init__(self, job: Mapping[str, Any], machines: Mapping[str, str]) -> None:
        self.job = job
        self.machines = machines
        self.workers: int = job["workers"]
        self.larger = [size for size in job["group_sizes"] if size > self.workers]
        self.size: int | None = None
        """The number of workers with which the run is to go on; None where that has not changed."""
        self._asked: PlacementGroup | None = None
        self._wanted = 0
        """The number of workers with the places that are asked for."""
        self._since: float | None = None
        """When these were there."""
        self._left_s = 0.0
        """What the run takes yet, by its last epoch."""
        self._looked = time.monotonic()

    def look(self) -> None:
        """While the run trains: ask for places, unless others wait for some: then give back what is there."""
        if not self.larger or time.monotonic() - self._looked < LOOK_S:
            return
        self._looked = time.monotonic()
        groups = placement_group_table()
        if others_wait(groups.values(), NAME) or someone_waits():
            self.give_back()
        elif self._asked is None:
            self._ask()
        elif groups[self._asked.id.hex()]["state"] != "CREATED":
            self._since = None
        elif self._since is None:
            self._since = time.monotonic()

    def _ask(self) -> None:
        """Ask for the places that are free, or where there are none for the fewest that would do."""
        self._wanted = largest(self.larger, self.workers + _free(self.job, self.machines))
        if pays(self.workers, self._wanted, self._left_s):
            more = self._wanted - self.workers
            self._asked = placement_group(
                [self.job["resources"]] * more,
                name=NAME,
                bundle_label_selector=[dict(self.machines)] * more,
            )

    def is_due(self, metrics: Mapping[str, float]) -> bool:
        """After an epoch: whether the run is to go on with `size` workers. It is at a checkpoint then, and its new
        places have been there for a while."""
        if not self.larger:
            return False
        epoch, every = int(metrics["epoch"]), self.job["place"]["checkpoint_every"]
        self._left_s = (self.job["config"]["optim"]["epochs"] - epoch) * metrics["seconds"]
        self.look()
        settled = self._since is not None and time.monotonic() - self._since >= SETTLE_S
        if settled and epoch % every == 0 and pays(self.workers, self._wanted, self._left_s):
            self.size = largest(self.larger, self._wanted + _free(self.job, self.machines))
        return self.size is not None

    def give_back(self) -> None:
        """Ask no more, and leave the places to others."""
        if self._asked is not None:
            remove_placement_group(self._asked)
        self._asked = self._since = None
