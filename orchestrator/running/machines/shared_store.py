"""Check that all machines of a cluster see the same store, before a run trains on one that does not."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.running.machines.ask_nodes import ask_each
from orchestrator.store.folder import Store
from orchestrator.store.objects.address import connect
from orchestrator.store.objects.working_copy import WorkingCopy
from trainer.config import UserError


def check_shared(store: Store, nodes: Sequence[Mapping[str, Any]]) -> None:
    """Raise UserError where a node does not see the driver's store."""
    if blind := blind_nodes(store, nodes):
        rule, remedy = what_all_need(store)
        raise UserError(f"{rule}, but {', '.join(blind)} of {len(nodes)} do not; {remedy}")


def what_all_need(store: Store) -> tuple[str, str]:
    """What each machine must do with the store, and the remedy where one does not."""
    if store.shared is not None:
        return f"all machines must read and write store {store.name}", "give them its credentials, or the role"
    return f"all machines must see store {store.root}", "name a folder that all of them mount with --store"


def blind_nodes(store: Store, nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Let every node read a file of the driver in the store and write one; the addresses of those that do not."""
    if store.shared is not None:
        return _blind_to(store.shared, nodes)
    folder = store.root / "seen" / uuid.uuid4().hex
    folder.mkdir(parents=True)
    try:
        (folder / "driver").write_text(folder.name, encoding="utf-8")
        ask_each(nodes, answer_in, lambda name: (str(folder), name))
        return sorted({node["NodeManagerAddress"] for node in nodes if not (folder / node["NodeID"]).exists()})
    finally:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


def _blind_to(copy: WorkingCopy, nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The same for a store at an address, which every node reads and writes by itself."""
    folder = f"seen/{uuid.uuid4().hex}"
    copy.objects.write(f"{folder}/driver", b"1")
    ask_each(nodes, answer_at, lambda name: (copy.address, folder, name))
    there = [info.name for info in copy.objects.list(folder)]
    for name in there:
        copy.objects.delete(name)
    return sorted({node["NodeManagerAddress"] for node in nodes if f"{folder}/{node['NodeID']}" not in there})


def answer_at(address: str, folder: str, name: str) -> None:
    """On a node: confirm at the store's address that the driver's object can be read."""
    objects = connect(address)
    objects.read(f"{folder}/driver")
    objects.write(f"{folder}/{name}", b"1")


def answer_in(folder: str, name: str) -> None:
    """On a node: confirm in the store that the driver's file can be read."""
    if (Path(folder) / "driver").is_file():
        (Path(folder) / name).touch()
