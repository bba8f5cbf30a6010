"""fit_together() under Ray: in a Tune trial, or in a worker of a Ray Train group. Only this file imports Ray."""

from __future__ import annotations

import contextlib
import socket
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import ray.tune
import torch

from trainer import parallel
from trainer.config import masked, parse
from trainer.config.blame import blamed
from trainer.files import run_folder
from trainer.files.failure import SILENT, failure_of
from trainer.place import Place
from trainer.plugins.load import add
from trainer.training.loop import fit_together, in_all_workers
from trainer.training.member import Run
from trainer.training.memory import release_memory

LOCK_WAIT_S = 240.0
"""Longest wait for the locks of run folders: after a driver is killed, Ray takes seconds to end its worker; a node that
has lost its head looks for it for 60 s (`RAY_gcs_rpc_server_reconnect_timeout_s`) before it ends its workers, and the
server of a network disk keeps the locks of a machine that is cut off for 90 s or so."""

Send = Callable[[dict[str, Any]], None]
"""Gives what a run reports to Ray."""


Leaves = Callable[[], bool]
"""Whether this machine is about to be taken away."""


def train_worker(settings: dict[str, Any], send: Send | None = None, leaves: Leaves = lambda: False) -> None:
    """Train one run, as `train_workers` does several."""
    train_workers([settings], send, leaves)


def train_workers(settings: Sequence[dict[str, Any]], send: Send | None = None, leaves: Leaves = lambda: False) -> None:
    """Train runs side by side. `settings` of each: config (plain data), place (Place's fields), run_id. Tune gets what
    they report, unless `send` is given; a worker of a group needs one. Where this machine `leaves`, they end after a
    step, with a checkpoint of it, cause `preempted`.

    Every report is a dict with `run_id`: the metrics of an epoch, and where there are several runs `ended: True` when
    one has finished, has failed or was ended early. A run ends early where the driver has called
    `run_folder.ask_to_end`; it is asked after each epoch.
    A failure is written to failure.json in the run's folder and not raised, so that the orchestrator decides on
    retries. Two exceptions: a full disk is raised, because nothing can be written; and what fails in a
    worker of a group, so that Ray ends the others, which wait for it.
    """
    distributed = parallel.joined()
    where: list[str] = []
    deadline = time.monotonic() + LOCK_WAIT_S
    seats = [Seat(one, send or ray.tune.report, leaves, alone=len(settings) == 1) for one in settings]
    try:
        where = parallel.all_said(_machine()) if distributed else []
        runs = [run for seat in seats if (run := seat.take(deadline)) is not None]
        if runs:
            fit_together(runs)
    except Exception as error:
        if failure_of(error).cause == "disk":
            raise
        error = _with_silent_ranks(error, where) if distributed else error
        for seat in seats:
            seat.fail(error)
        if distributed:
            raise error
    finally:  # here the error is gone, and with it the frames that held the runs' tensors
        for seat in seats:
            seat.leave()
        with contextlib.suppress(RuntimeError):  # on a GPU that has failed every call does
            release_memory()


def _machine() -> str:
    """This machine, as people and as Ray call it."""
    return f"{socket.gethostname()} (Ray's node {ray.get_runtime_context().get_node_id()[:8]})"


def _with_silent_ranks(error: Exception, where: Sequence[str]) -> Exception:
    """An error of this worker. If it has lost others, one that names those that do not answer, and their machines."""
    if failure_of(error).cause != "lost" or not (silent := parallel.silent_ranks()):
        return error
    named = [f"rank {rank} on {where[rank] if where else 'a machine that is not known yet'}" for rank in silent]
    found = parallel.SilentRankError(f"{' and '.join(named)} {SILENT}: it hangs, has died, or its network is cut")
    found.__cause__ = error
    return found


class Seat:
    """A run's place in a process: its folder's lock, its reports, and the record of its failure."""

    def __init__(self, settings: dict[str, Any], send: Send, leaves: Leaves, *, alone: bool) -> None:
        self.settings, self.send, self.leaves, self.alone = settings, send, leaves, alone
        self.place = _on_device(Place(**settings["place"]))
        self.run_id: str = settings.get("run_id", "")
        self.distributed = parallel.joined()
        self.over = False
        self._lock = contextlib.ExitStack()

    def take(self, deadline: float) -> Run | None:
        """Lock the folder, waiting until `deadline` of the monotonic clock; None where that or the config fails."""
        try:
            in_all_workers(lambda: self._enter(deadline))
            config = parse(self.settings["config"])
            add(config.used_plugins)
        except Exception as error:
            if self.alone or failure_of(error).cause != "user":
                raise
            self.ended(error)
            return None
        # where one of several workers fails alone, Ray must end the others
        ended = None if self.alone and self.distributed else self.ended
        return Run(config, self.place, self.report, ended, self.run_id, self.leaves)

    def _enter(self, deadline: float) -> None:
        if parallel.rank() == 0:  # against a worker of a killed driver that Ray has not ended yet
            wait_s = max(0.0, deadline - time.monotonic())
            self._lock.enter_context(run_folder.lock_folder(self.place.out_dir, wait_s))
            run_folder.workers_begin(self.place.out_dir)

    def report(self, metrics: dict[str, float], checkpoint: Path | None) -> bool:
        """Report an epoch; whether the driver wants the run to end here."""
        self.send({"run_id": self.run_id, **metrics})
        return run_folder.is_asked_to_end(self.place.out_dir)

    def ended(self, error: Exception | None) -> None:
        """Record and report the end of the run."""
        if error is not None:
            self.fail(error)
        self.leave()
        if not self.alone:
            self.send({"run_id": self.run_id, "ended": True})

    def fail(self, error: Exception) -> None:
        """Record a failure, unless the run is over, or another process's."""
        if self.over or run_folder.is_lost(self.place.out_dir):
            return
        out, failure = self.place.out_dir, failure_of(error)
        run_folder.write_failure(out, *failure)
        if failure.cause in ("bug", "device") or isinstance(error, ImportError) or blamed(error):
            run_folder.write_text(out / "traceback.txt", masked("".join(traceback.format_exception(error))))

    def leave(self) -> None:
        """Give the folder back."""
        self.over = True
        self._lock.close()


def _on_device(place: Place) -> Place:
    """The place with this worker's GPU: each worker of a group sees all GPUs of its machine."""
    if not parallel.joined() or place.device != "cuda":
        return place
    device = ray.train.torch.get_device()
    torch.cuda.set_device(device)
    return replace(place, device=str(device))
