"""Whether the machine of this process can train a run: it may have joined the cluster without the store or the data."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray

from orchestrator.prepare.machine import gpu_ids
from orchestrator.running.group_size import places
from orchestrator.running.machines.avoided import Avoided, avoid, listed, room_without
from orchestrator.running.machines.failed_gpus import hold, own_gpus
from orchestrator.running.machines.leaving import leaves
from orchestrator.store.objects.uploads import copy_of
from trainer.config import UnreachableError, UserError, masked, message_of
from trainer.files.failure import ASSERT, Failure


class UnfitMachineError(Exception):
    """A run is to train on another machine: this one, which the message names, lacks the store or the data, or ends."""


def check_here(job: Mapping[str, Any]) -> None:
    """Raise UnfitMachineError where this machine lacks what a run (`Job.settings`) needs. It is given no further run of
    this driver then, nor where it is about to be taken away."""
    if leaves():
        raise UnfitMachineError(f"{socket.gethostname()} is about to be taken away")
    if what := missing(job["store"], job["place"]["data_root"]):
        why = f"{socket.gethostname()} gets no runs: {what}, and start Ray there again"
        avoid(job["launch"], Avoided(why, True))
        raise UnfitMachineError(why)
    gpus = own_gpus()
    said = listed(job["launch"]).get((ray.get_runtime_context().get_node_id(), "+".join(gpus))) if gpus else None
    if said:
        raise UnfitMachineError(said.why)


def gpu_failed(job: Mapping[str, Any], failure: Failure) -> None:
    """Give no further run to this process's GPU where it has failed; until that is certain none to this machine. An
    index out of range is no fault of a GPU. A GPU without which the run has no room is left in use."""
    if failure.cause != "device" or ASSERT in failure.reason:
        return
    gpus, node, amount = own_gpus(), ray.get_runtime_context().get_node_id(), job["resources"].get("GPU", 0)
    which = ", ".join(gpu_ids(gpus)) or "its GPU"
    room = room_without(gpus, node, listed(job["launch"]), ray.nodes())
    spared = bool(gpus) and places(room, job["resources"]) >= job["group_sizes"][0]
    words = f"gives no more runs to {which}" if spared else f"gets no more runs while others have room: {which} failed"
    why = f"{socket.gethostname()} {words} ({failure.reason})"
    avoid(job["launch"], Avoided(why, False, tuple(gpus) if spared else (), amount))
    if spared:
        hold(node, gpus, amount)


def missing(store: Mapping[str, str], data_root: Path | None) -> str:
    """What this machine lacks and what to do, "" where nothing. `store`: `Store.settings`. Raises UserError where the
    store at an address was replaced, and UnreachableError where that does not answer: machines do not differ in this.
    """
    root, address = Path(store["root"]), store["address"]
    try:
        copy = copy_of(store)
        identity = _identity(root) if copy is None else copy.identity()
        if copy is None and identity != store["identity"]:
            return f"the driver's store {root} is not there; mount it there"
        if data_root is not None and not (data_root.is_dir() and any(data_root.iterdir())):
            return f"no data in {data_root} there; mount or copy them there"
    except UnreachableError:
        raise
    except (OSError, UserError) as error:
        return f"the store or the data cannot be read there ({message_of(error)}); mount them there"
    if identity != store["identity"]:
        raise UserError(f"store {masked(address)} was replaced while the study ran; run the same command again")
    return ""


def _identity(root: Path) -> str:
    file = root / "identity"
    return file.read_text(encoding="utf-8").strip() if file.is_file() else "none"
