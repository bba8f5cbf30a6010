"""Machines that take no further run of this driver: they lack the store or the data, or a GPU of theirs has failed.

The list is kept by Ray's head: a machine that lacks the store has no other way to tell. One with a failed GPU is on it
until that GPU is held (`failed_gpus.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ray
from ray.experimental.internal_kv import _internal_kv_put, internal_kv_get_gcs_client

from orchestrator.running import group_size

NAMESPACE = b"transkd-avoided"


class Avoided(NamedTuple):
    """Why a machine takes no run: one line for people that names it. Where it `lacks` the store or the data no run can
    train on it; where only a GPU has failed a run may, if no other machine has room."""

    why: str
    lacks: bool
    gpus: tuple[str, ...] = ()
    """Ray's ids of the GPUs of a process, one of which has failed."""
    amount: float = 0
    """How much of them the process had."""
    held: bool = False
    """Whether no further run gets these GPUs, so that the machine takes runs again."""


def avoid(launch: str, found: Avoided, node: str | None = None) -> None:
    """Give no further run of this launch (`orchestrator/prepare/jobs.py:LAUNCH`) to a machine, by default that of this
    process; or, where the GPUs are held, runs again."""
    key = f"{launch}/{node or ray.get_runtime_context().get_node_id()}/{'+'.join(found.gpus)}"
    _internal_kv_put(key, json.dumps(found), namespace=NAMESPACE)


def listed(launch: str, timeout_s: float | None = None) -> dict[tuple[str, str], Avoided]:
    """Ray's id of a machine and its GPUs, "" where it is the machine -> what is known of it. Raises RayError where the
    head does not answer."""
    head = internal_kv_get_gcs_client()
    found: dict[tuple[str, str], Avoided] = {}
    for key in head.internal_kv_keys(f"{launch}/".encode(), NAMESPACE, timeout=timeout_s):
        if (value := head.internal_kv_get(key, NAMESPACE, timeout=timeout_s)) is not None:
            why, lacks, gpus, *more = json.loads(value)
            _, node, which = key.decode().split("/")
            found[node, which] = Avoided(why, lacks, tuple(gpus), *more)
    return found


def machines_of(found: Mapping[tuple[str, str], Avoided]) -> dict[str, Avoided]:
    """Ray's id of a machine -> why it takes no run: what it lacks before a GPU of it that has failed."""
    closed = [(node, said) for (node, _), said in found.items() if not said.held]
    return dict(sorted(closed, key=lambda each: each[1].lacks))


def machines_for(job: Mapping[str, Any]) -> dict[str, str]:
    """Ray's label selector for the machines that may train a run (`Job.settings`); empty where all may."""
    found = machines_of(listed(job["launch"]))
    return selector(found, ray.nodes(), job) if found else {}


def room_without(
    gpus: Sequence[str], node: str, found: Mapping[tuple[str, str], Avoided], nodes: Sequence[Mapping[str, Any]]
) -> list[dict[str, float]]:
    """What Ray's machines have without these GPUs of `node` and without those that failed before."""
    lost = {(node, "+".join(gpus)): len(gpus)} | {key: len(said.gpus) for key, said in found.items()}
    count = {each: sum(number for (other, _), number in lost.items() if other == each) for each, _ in lost}
    return [
        {**each["Resources"], "GPU": each["Resources"].get("GPU", 0) - count.get(each["NodeID"], 0)}
        for each in nodes
        if each["Alive"]
    ]


def selector(
    avoided: Mapping[str, Avoided], nodes: Sequence[Mapping[str, Any]], job: Mapping[str, Any]
) -> dict[str, str]:
    """The same as a function of the machines that are there."""
    out = set(avoided)
    if places(nodes, out, job["resources"]) < job["group_sizes"][0]:
        out = {node for node, said in avoided.items() if said.lacks}
    return {"ray.io/node-id": f"!in({','.join(sorted(out))})"} if out else {}


def places(nodes: Sequence[Mapping[str, Any]], out: set[str], resources: Mapping[str, float]) -> int:
    """The workers for which there is room, now or later, on the machines that are not `out`; one needs `resources`."""
    there = [node["Resources"] for node in nodes if node["Alive"] and node["NodeID"] not in out]
    return group_size.places(there, resources)
