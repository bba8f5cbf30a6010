"""MachineWatch: the driver names the machines that take no further run of it, and ends where none is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ray

from cluster.spec import ClusterSpec
from orchestrator.prepare.jobs import LAUNCH
from orchestrator.running.machines.avoided import Avoided, avoided, places
from trainer.config import UserError

ANSWER_S = 2
"""Timeout for an answer of the head, in seconds: in Ray's code the driver hears no signal."""
HOPELESS = 3
"""After so many machines without the store or the data no further one is waited for: an autoscaler may start them for
ever."""


class MachineWatch:
    """Asks for the list of `avoided.py` in the name of the driver."""

    def __init__(self, spec: ClusterSpec) -> None:
        self.resources = {"CPU": spec.cpus_per_worker, "GPU": spec.gpus_per_worker}
        self._named: set[str] = set()

    def look(self) -> list[str]:
        """A line for each machine that is new on the list. Raises UserError as `lines` does."""
        try:
            found = avoided(LAUNCH, ANSWER_S)
        except ray.exceptions.RayError:  # `head_watch.py` says what is wrong
            return []
        new = found.keys() - self._named
        self._named |= new
        return lines(found, new, ray.nodes(), self.resources, ray.get_runtime_context().get_node_id()) if new else []


def lines(
    found: Mapping[str, Avoided],
    new: set[str],
    nodes: Sequence[Mapping[str, Any]],
    resources: Mapping[str, float],
    here: str,
) -> list[str]:
    """What is said of the `new` machines. Raises UserError where no other has room for a worker and none is waited for:
    the driver's own, `here`, lacks what runs need, or many do."""
    lacking = {node for node, said in found.items() if said.lacks}
    waits = bool(lacking & new) and not places(nodes, lacking, resources)
    if waits and (here in lacking or len(lacking) >= HOPELESS):
        raise UserError(f"no machine has room for a run: {'; '.join(sorted({found[node].why for node in lacking}))}")
    return [found[node].why + ("; until another machine comes, runs wait" if waits else "") for node in sorted(new)]
