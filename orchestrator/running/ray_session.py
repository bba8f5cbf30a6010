"""A Ray session: started on this machine or joined, without log output, and shut down after the study."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from cluster.machine_types import Machine
from cluster.spec import ClusterSpec, variants
from orchestrator import packages
from orchestrator.prepare.machine import here
from orchestrator.running.machines.head_watch import HeadWatch
from orchestrator.running.machines.nodes_alike import check_alike
from orchestrator.running.machines.shared_store import check_shared
from orchestrator.store.folder import Store
from trainer.config import UserError, message_of

ENVIRONMENT = {
    # The ledger is the record: Tune's own loggers write 300-character folders and cost memory.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # So is its own record of all trials, in seconds between two: a fifth of the driver's time with hundreds of runs.
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "RAY_AIR_NEW_OUTPUT": "0",
    # Ctrl-C must end the driver; Tune would end only the phase, and the next one would start.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # A stopped trial's thread has to end before its process can take another; Tune's 2 s are short on a busy machine.
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",
    # Every 10 s Tune would ask the head for its resources, only to show them, and hear no signal while it waits.
    "TUNE_STATE_REFRESH_PERIOD": str(30 * 24 * 3600),
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray would start a worker a CPU at once, which none of our actors can use: they begin with a hook (runtime_env).
    "RAY_prestart_worker_first_driver": "0",
}

ENDS_AFTER = "RAY_gcs_rpc_server_reconnect_timeout_s"
CLOSING_S = 600
"""So many seconds after its head is lost Ray ends this process; by default 60, in which MLflow may not get all."""

LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Makes 127.0.0.1 the address of a Ray that is started here, on every system: its processes listen on nothing else, and
no other machine reaches them. Ray reads it when it is imported."""

START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
PLACE_S = 30 * 24 * 3600
"""For so many seconds a group of workers keeps its place in Ray's queue. A group that gives its place back and asks
again loses it to others, and an autoscaler removes the machines that it has just started for it."""

SOCKET_BYTES = 103 if sys.platform == "darwin" else 107
"""The longest path of a Unix socket."""

ANSWER_S = 5.0
"""Timeout for an answer of the Ray that is to be joined, in seconds."""

STARTS = 4
"""Attempts to start Ray on this machine."""

WAIT_S = 30.0
"""For so many seconds Ray waits for its own processes to start, by a constant of its code. An attempt that fails sooner
has another reason, and is not made again."""

ENDING_S = 10.0
"""Longest wait for the processes of a start that failed to end, in seconds."""

_INTERRUPTED = threading.Event()


def _interrupt(number: int, frame: object) -> None:
    _INTERRUPTED.set()
    raise KeyboardInterrupt


def raise_if_interrupted() -> None:
    """Raise KeyboardInterrupt again if the driver was interrupted: Ray's code may have swallowed the first one."""
    if _INTERRUPTED.is_set():
        raise KeyboardInterrupt


def check_address(address: str) -> None:
    """Raise UserError where HOST:PORT, or what `auto` finds, does not answer: Ray would retry for minutes and then end
    the process. Where Ray is to be started here, raise it unless its folder can be used."""
    if address == "local":
        _check_folder()
    where = _found() if address == "auto" else address
    host, colon, port = where.rpartition(":")
    if not colon or "://" in where:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"address: no Ray answers at {where} ({message_of(error)}); start one there with "
            f"`ray start --head --port {port}`, or use address: local"
        ) from None


def _found() -> str:
    """HOST:PORT of the Ray that `auto` stands for: of RAY_ADDRESS, else of this machine; "" where Ray knows best."""
    from ray._private.services import canonicalize_bootstrap_address

    try:
        return str(canonicalize_bootstrap_address("auto") or "")
    except ConnectionError:
        raise UserError(
            "address: auto joins the Ray of this machine, and none runs here; start one with `ray start --head`, run "
            "this on a machine of the cluster, or use address: local"
        ) from None
    except ValueError:  # a RAY_ADDRESS of another kind
        return ""


def _check_folder() -> None:
    """Raise UserError where Ray's temporary folder cannot be written, or is too long for the path of a socket."""
    name = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
    folder = Path(os.environ.get(name, "/tmp"))
    remedy = "set RAY_TMPDIR to a short folder of this machine, for example /tmp"
    now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S_%f")
    longest = folder / "ray" / f"session_{now}_{os.getpid()}" / "sockets" / "plasma_store"
    if (beyond := len(os.fsencode(longest)) - SOCKET_BYTES) > 0:
        raise UserError(
            f"{name} is {beyond} bytes too long for the sockets that Ray makes below it, whose paths end at "
            f"{SOCKET_BYTES}: {folder}; {remedy}"
        )
    there = next(path for path in (folder / "ray", folder, *folder.absolute().parents) if path.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise UserError(f"{name}: Ray cannot write below {there}; {remedy}")


def _start(**options: Any) -> None:
    """`ray.init`; its errors, of any class, become UserError.

    Ray on this machine gets `STARTS` attempts: Ray waits half a minute for its own processes, and a busy machine takes
    longer. What an attempt leaves behind is ended before the next.
    """
    import ray

    for attempts_left in reversed(range(STARTS if options["address"] == "local" else 1)):
        before, begun = set(psutil.Process().children(recursive=True)), time.monotonic()
        try:
            ray.init(**options)
            return
        except Exception as error:
            left = set(psutil.Process().children(recursive=True)) - before
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left, timeout=ENDING_S)
            if not attempts_left or time.monotonic() - begun < WAIT_S:
                raise UserError(
                    f"Ray did not start or could not be joined: {message_of(error)}; run the same command again"
                ) from error


def _as_here() -> Callable[[], None]:
    """What Ray calls first in each worker: it must not be found by an import itself, so it is pickled by value."""
    import ray.cloudpickle

    ray.cloudpickle.register_pickle_by_value(packages)
    return packages.as_here()


@contextlib.contextmanager
def session(
    spec: ClusterSpec,
    store: Store,
    say: Callable[[str], None] = lambda text: None,
    close: Callable[[], object] = lambda: None,
) -> Iterator[list[Machine]]:
    """Start or join Ray for one study; yields its current machines. Raises UserError where one lacks the store, or what
    else runs need, and RayLost as `joined` does. `say` is given what it does and what is no reason to stop."""
    with joined(spec, close) as nodes:
        if len(nodes) > 1:
            check_shared(store, nodes)
            check_alike(spec, store, nodes, say)
        yield [Machine(n["Resources"].get("CPU", 0), n["Resources"].get("GPU", 0)) for n in nodes]


@contextlib.contextmanager
def joined(spec: ClusterSpec, close: Callable[[], object] = lambda: None) -> Iterator[list[dict[str, Any]]]:
    """Start or join Ray; yields its current nodes, as Ray describes them. Raises RayLost where its head goes away;
    where this thread is stuck in Ray's code then, `close` is called on another, and the process ended."""
    for name, value in (ENVIRONMENT | (LOOPBACK if spec.address == "local" else {})).items():
        os.environ.setdefault(name, value)
    timeout = os.environ.setdefault(START_TIMEOUT, str(PLACE_S))
    if spec.address != "local":  # processes that Ray starts here are to end soon
        os.environ.setdefault(ENDS_AFTER, str(CLOSING_S))
    import ray

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _interrupt)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # failed trials are shown in the table with their reason
    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "runtime_env": {"worker_process_setup_hook": _as_here(), "env_vars": {START_TIMEOUT: timeout}},
    }
    if spec.address == "local":
        machine = here()
        # Ray removes a stopped group's placement through the dashboard: only runs with several workers need it
        _start(
            address="local",
            num_cpus=int(machine.cpus),
            num_gpus=int(machine.gpus),
            include_dashboard=any(each.most_workers > 1 for each in variants(spec).values()),
            **options,
        )
    else:
        _start(address=spec.address, **options)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)  # e.g. a job's time limit; Ray's own handler would exit at once
    watch = HeadWatch(ray.get_runtime_context().gcs_address, close)
    try:
        yield [node for node in ray.nodes() if node["Alive"]]
    except BaseException as error:
        if watch.explains(error):
            raise watch.error() from None
        raise
    finally:
        watch.end()
        if not watch.lost:  # it would wait for the head
            _shut_down()


def _shut_down() -> None:
    """`ray.shutdown`. Garbage is collected before it and not during it: where one of our threads frees an object of Ray
    while Ray shuts down, Ray ends the process at once, with exit code 1 (ray-project/ray, pull request 19115)."""
    import ray

    gc.collect()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        gc.enable()
