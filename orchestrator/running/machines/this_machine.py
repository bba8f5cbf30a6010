"""Whether the machine of this process can train a run: it may have joined the cluster without the store or the data."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray

from orchestrator.prepare.machine import gpu_ids
from orchestrator.running.machines.avoided import Avoided, avoid, listed
from orchestrator.running.machines.failed_gpus import own_gpus
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
    if gpus := own_gpus():
        here = ray.get_runtime_context().get_node_id()
        for (node, _), said in listed(job["launch"]).items():
            if node == here and said.shut and not set(gpus).isdisjoint(said.gpus):
                raise UnfitMachineError(said.why)


def gpu_failed(launch: str, failure: Failure) -> None:
    """List this process's GPUs, one of which has failed: this machine gets no further run of the launch while others
    have room, and these GPUs none once the driver holds them. An index out of range is no fault of a GPU."""
    if failure.cause == "device" and ASSERT not in failure.reason:
        gpus = tuple(own_gpus())
        before = listed(launch).get((ray.get_runtime_context().get_node_id(), "+".join(gpus)))
        which = ", ".join(gpu_ids(gpus)) or "its GPU"
        why = f"{socket.gethostname()} gets no more runs while others have room: {which} failed ({failure.reason})"
        found = before._replace(why=why, times=before.times + 1) if before and gpus else Avoided(why, False, gpus)
        avoid(launch, found)


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
