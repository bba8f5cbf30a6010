"""MachineWatch: the driver names the machines that take no further run of it, and ends where none is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ray

from cluster.spec import ClusterSpec
from orchestrator.prepare.jobs import LAUNCH
from orchestrator.running.machines.avoided import Avoided, avoid, listed, places
from orchestrator.running.machines.failed_gpus import MachineHolds
from trainer.config import UserError

ANSWER_S = 2
"""Timeout for an answer of the head, in seconds: in Ray's code the driver hears no signal."""
HOPELESS = 3
"""After so many machines without the store or the data no further one is waited for: an autoscaler may start them for
ever."""


class MachineWatch:
    """Asks for the list of `avoided.py` in the name of the driver, and sees to it that failed GPUs are held."""

    def __init__(self, spec: ClusterSpec) -> None:
        self.resources = {"CPU": spec.cpus_per_worker, "GPU": spec.gpus_per_worker}
        self._named: set[tuple[str, str]] = set()
        self._holds: dict[str, MachineHolds] = {}

    def look(self) -> list[str]:
        """A line for each machine or GPU that is new on the list. Raises UserError as `lines` does."""
        try:
            found = listed(LAUNCH, ANSWER_S)
            if not found:
                return []
            nodes = ray.nodes()
            self._hold(found, nodes)
        except ray.exceptions.RayError:  # `head_watch.py` says what is wrong
            return []
        new = found.keys() - self._named
        self._named |= new
        return lines(found, new, nodes, self.resources, ray.get_runtime_context().get_node_id()) if new else []

    def _hold(self, found: Mapping[tuple[str, str], Avoided], nodes: Sequence[Mapping[str, Any]]) -> None:
        """Hold failed GPUs, and let their machines take runs again once they are held."""
        there = {node["NodeID"]: node["Resources"].get("GPU", 0) for node in nodes if node["Alive"]}
        for node in there.keys() & {node for (node, _), said in found.items() if said.gpus}:
            failed = {which: said for (other, which), said in found.items() if other == node and said.gpus}
            holds = self._holds.setdefault(node, MachineHolds(node))
            held = holds.look({said.gpus: said.amount for said in failed.values()}, there[node])
            for said in failed.values():
                if held.issuperset(said.gpus) and not said.held:
                    avoid(LAUNCH, said._replace(held=True), node)


def lines(
    found: Mapping[tuple[str, str], Avoided],
    new: set[tuple[str, str]],
    nodes: Sequence[Mapping[str, Any]],
    resources: Mapping[str, float],
    here: str,
) -> list[str]:
    """What is said of the `new` machines and GPUs. Raises UserError where no other has room for a worker and none is
    waited for: the driver's own, `here`, lacks what runs need, or many do."""
    lacking = {node for (node, _), said in found.items() if said.lacks}
    waits = any(found[key].lacks for key in new) and not places(nodes, lacking, resources)
    if waits and (here in lacking or len(lacking) >= HOPELESS):
        raise UserError(
            f"no machine has room for a run: {'; '.join(sorted({found[node, ''].why for node in lacking}))}"
        )
    return [found[key].why + ("; until another machine comes, runs wait" if waits else "") for key in sorted(new)]
