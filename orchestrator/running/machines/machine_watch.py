"""MachineWatch: the driver names the machines that take no further run of it, and ends where none is left."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import ray

from cluster.spec import ClusterSpec, variants
from orchestrator.prepare.jobs import LAUNCH
from orchestrator.running.machines.avoided import Listed, avoid, held_by, listed, places, without
from orchestrator.running.machines.failed_gpus import Hold, launches_that_hold
from trainer.config import UserError

ANSWER_S = 2
"""Timeout for an answer of the head, in seconds: in Ray's code the driver hears no signal."""
HARDWARE = (
    "ECC error|NVLink error|hardware|RAS error|device failure|contained error|GPU is lost|fallen off|requires reset"
)
"""Messages of a GPU that is broken. After others, which a program's mistake may cause too, it is tried once more."""
HOPELESS = 3
"""After so many machines without the store or the data no further one is waited for: an autoscaler may start them for
ever."""


class MachineWatch:
    """Asks for the list of `avoided.py` in the name of the driver, and holds failed GPUs that runs can do without."""

    def __init__(self, spec: ClusterSpec) -> None:
        self.resources = _worker(spec)
        self.shapes = [(_worker(each), each.least_workers) for each in variants(spec).values()]
        """What a worker needs, and how many a run has at least: of all runs, and of those that an override names."""
        self._named: set[tuple[str, str]] = set()
        self._holds: dict[str, Hold] = {}

    def look(self) -> list[str]:
        """A line for each machine or GPU that is new on the list. Raises UserError as `lines` does."""
        try:
            found = listed(LAUNCH, ANSWER_S)
            if not found:
                return []
            nodes = [node for node in ray.nodes() if node["Alive"]]
            back = self._hold(found, nodes)
        except ray.exceptions.RayError:  # `head_watch.py` says what is wrong
            return []
        new = found.keys() - self._named
        self._named |= new
        here = ray.get_runtime_context().get_node_id()
        return [*(lines(found, new, nodes, self.resources, here) if new else []), *back]

    def _hold(self, found: Listed, nodes: Sequence[Mapping[str, Any]]) -> list[str]:
        """Hold failed GPUs, and give them back where runs have no room without them; a line for each machine that takes
        runs again. Machines that lack what runs need are no room, and nothing of them is held."""
        lacking = {node for (node, _), said in found.items() if said.lacks}
        nodes = [each for each in nodes if each["NodeID"] not in lacking]
        for gone in self._holds.keys() - {each["NodeID"] for each in nodes}:
            self._holds.pop(gone).release()
        failed: dict[str, set[str]] = {}
        for (node, _), said in found.items():
            if said.times > 1 or re.search(HARDWARE, said.why.partition(" failed (")[2], re.IGNORECASE):
                failed.setdefault(node, set()).update(said.gpus)
        whole = all(float(need["GPU"]).is_integer() for need, _ in self.shapes)
        others = held_by(launches_that_hold() - {LAUNCH}, ANSWER_S) if any(failed.values()) and whole else {}
        lost, back = {node: set(gpus) for node, gpus in others.items()}, []
        for each in nodes:
            node, gpus = each["NodeID"], failed.get(each["NodeID"], set())
            more = {**lost, node: lost.get(node, set()) | gpus}
            held = False
            if spared := bool(gpus) and whole and self._have_room(node, more, nodes):
                lost = more
                hold = self._holds.setdefault(node, Hold(LAUNCH, node))
                held = hold.look(gpus - others.get(node, set()), int(each["Resources"]["GPU"]))
            elif node in self._holds:
                self._holds.pop(node).release()
            listed_here = [said for (other, _), said in found.items() if other == node]
            changed = [
                said
                for said in listed_here
                if gpus.intersection(said.gpus) and (said.shut, said.held) != (spared, held)
            ]
            for said in changed:
                avoid(LAUNCH, said._replace(shut=spared, held=held), node)
            if held and changed and all(said.gpus and gpus.issuperset(said.gpus) for said in listed_here):
                back.append(f"{each['NodeManagerHostname']} gets runs again, but on GPU {', '.join(sorted(gpus))}")
        return back

    def _have_room(self, node: str, lost: Mapping[str, set[str]], nodes: Sequence[Mapping[str, Any]]) -> bool:
        """Whether runs of each shape have room without these GPUs, one of them on this machine: where none has, the
        machine is better left to itself, so that the autoscaler ends it."""
        left = without(lost, nodes)
        own = [each for each in left if each["NodeID"] == node]
        return all(places(left, set(), need) >= least for need, least in self.shapes) and any(
            places(own, set(), need) for need, _ in self.shapes if need["GPU"]
        )


def _worker(spec: ClusterSpec) -> dict[str, float]:
    return {"CPU": spec.cpus_per_worker, "GPU": spec.gpus_per_worker}


def lines(
    found: Listed,
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
