"""Health: what `transkd doctor` checks of this machine and its store, a line each, and `transkd run` in a second."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from cluster.spec import ClusterSpec
from orchestrator.prepare.checks import (
    CLOCK_S,
    OK,
    PROBLEM,
    WARNING,
    Line,
    data,
    disk,
    gpu,
    requirements,
    shared_memory,
    versions,
)
from orchestrator.prepare.machine_facts import Facts, existing, free_bytes, shm_bytes
from orchestrator.running.ray_session import check_address
from orchestrator.store.folder import Store
from orchestrator.store.objects.working_copy import WorkingCopy
from orchestrator.store.sharing import group_id
from orchestrator.tracking.address import database_file, shown, uri_of
from orchestrator.tracking.mlflow_server import Server
from trainer.compiler import check_compiler
from trainer.config import UserError, message_of

ANSWERING = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "4", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
"""How long an MLflow server is asked, in seconds and retries."""


def refusal(what: str, check: Callable[[], object], fine: str) -> Line:
    """A check that raises UserError, whose message ends with the remedy."""
    try:
        check()
    except UserError as error:
        found, _, remedy = str(error).rpartition("; ")
        return Line(what, PROBLEM, found or remedy, remedy if found else "")
    return Line(what, OK, fine)


def store_works(store: Store) -> Line:
    """Whether files can be written, locked, linked and renamed where the store is or will be; of one at an address, as
    `address_works`."""
    if store.shared is not None:
        return address_works(store.shared)
    folder = existing(store.root)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".doctor-") as temporary:
            first, second = Path(temporary, "first"), Path(temporary, "second")
            with first.open("w", encoding="utf-8") as file, first.open("a", encoding="utf-8") as other:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remedy = "name a store on a file system that has them"
                    return Line("store", PROBLEM, f"locks do not hold at {folder}: two drivers would write", remedy)
                file.write("x")
                file.flush()
                os.fsync(file.fileno())
            apart = first.stat().st_mtime - time.time()  # on a network disk the server's clock
            os.link(first, second)
            first.replace(second)
    except OSError as error:
        return Line(
            "store", PROBLEM, f"{folder}: {message_of(error)}", "name a folder that you may write, with --store"
        )
    if abs(apart) > CLOCK_S:
        return Line("store", WARNING, f"the clock of its disk differs by {abs(apart):.0f} s", "set the clocks by NTP")
    return Line("store", OK, f"{store.root} can be written, locked and renamed in")


def address_works(copy: WorkingCopy) -> Line:
    """Whether objects can be written, read, listed and deleted at a store's address, and be written once."""
    name, began_s = f"probes/{uuid.uuid4().hex}", time.time()
    try:
        objects = copy.objects
        objects.check_bucket()
        objects.write(name, b"1")
        objects.read(name)
        written_s = {info.name: info.written_s for info in objects.list("probes")}[name]
        ended_s = time.time()
        objects.delete(name)
        is_conditional = objects.creates_once
    except UserError as error:
        found, _, remedy = str(error).rpartition("; ")
        return Line("store", PROBLEM, found, remedy)
    if not is_conditional:
        found = f"{objects.address} has no conditional writes, so that one driver at a time can use it"
        return Line("store", WARNING, found, "name a store that has them, where several studies are to run")
    if (apart := max(began_s - 1 - written_s, written_s - ended_s)) > CLOCK_S:  # S3 tells whole seconds
        return Line(
            "store", WARNING, f"the clock of {objects.address} differs by {apart:.0f} s", "set the clock by NTP"
        )
    return Line("store", OK, f"{objects.address} can be written, read and deleted from, and has conditional writes")


def tracking(store: Store) -> Line:
    """Whether MLflow can be reached. Runs train without it too."""
    if (wrong := refusal("MLflow", lambda: uri_of(store), "")).state == PROBLEM:
        return wrong
    uri = uri_of(store)
    if (file := database_file(uri)) is not None:
        return Line("MLflow", OK, f"{shown(uri)}{'' if file.exists() else ', made by the first run'}")
    for name, value in ANSWERING.items():
        os.environ.setdefault(name, value)
    try:
        Server(uri, store.artifacts).ask()
    except Exception as error:
        return Line("MLflow", WARNING, f"{shown(uri)}: {message_of(error)[:200]}", "start it, or correct its address")
    return Line("MLflow", OK, f"{shown(uri)} answers")


def token() -> list[Line]:
    """Whether the token is there that a cluster asks for; nothing where none is asked for."""
    if os.environ.get("RAY_AUTH_MODE") != "token":
        return []
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if os.environ.get("RAY_AUTH_TOKEN") or file.is_file():
        return [Line("token", OK, "RAY_AUTH_TOKEN" if os.environ.get("RAY_AUTH_TOKEN") else str(file))]
    return [Line("token", PROBLEM, f"RAY_AUTH_MODE is token, and there is no {file}", "copy the cluster's there")]


def machine(here: Facts, spec: ClusterSpec, store: Store, folders: Mapping[str, str]) -> list[Line]:
    """All checks of this machine. `folders`: what is kept on a disk -> where."""
    local = spec.address == "local"
    lines = versions(here.packages, requirements())
    if local:
        lines.append(gpu(here.gpus, spec.most_gpus))
        if spec.compile:
            device = "cuda" if spec.most_gpus else "cpu"
            lines.append(refusal("compiler", lambda: check_compiler(device), f"torch.compile has what {device} needs"))
    fine = "its folder is short enough and can be written" if local else f"{spec.address} answers"
    lines.append(refusal("Ray", lambda: check_address(spec.address), fine))
    if spec.group is not None:
        group = spec.group
        lines.append(refusal("group", lambda: group_id(group), f"{group} shares the store"))
    lines += token()
    lines += shared_memory(here.shm_bytes)
    lines += [disk(f"disk of {name}", folder, here.free_bytes[folder]) for name, folder in folders.items()]
    return [*lines, store_works(store), tracking(store), *data(here, spec)]


def folders_of(store: Store) -> dict[str, str]:
    """What is kept on a disk -> where."""
    ray = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    kept = "the store" if store.shared is None else "the working copy"
    return {kept: str(store.root), "the cache": str(store.cache), "Ray": ray}


def before_a_study(store: Store) -> list[Line]:
    """What `transkd run` says of this machine before the first run: what is not ok, found within a second. Whether
    MLflow's server answers is told by the sender. Little room is a warning here: a full disk pauses a study."""
    lines = [*token(), *shared_memory(shm_bytes()), store_works(store)]
    for name, folder in folders_of(store).items():
        found = disk(f"disk of {name}", folder, free_bytes(Path(folder)))
        lines.append(found if found.state == OK else found._replace(state=WARNING))
    return [line for line in lines if line.state != OK]
