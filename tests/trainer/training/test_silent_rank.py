"""A worker that hangs while it keeps its connections: the others say which it is, and on which machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainer.files import run_folder

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[3]

GROUPS = """
import json, os, signal, sys
from datetime import timedelta
from pathlib import Path
import torch.distributed as dist
from trainer import worker

def train(rank, world, frozen, address, out, cache, config):
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world, timeout=timedelta(minutes=2))
    dist.distributed_c10d._set_pg_timeout(timedelta(seconds=15))
    worker._machine = lambda: f"machine {rank}"  # no Ray is here to name it

    def send(metrics):
        if rank == frozen:
            os.kill(os.getpid(), signal.SIGSTOP)

    place = {"out_dir": Path(out), "cache_dir": Path(cache), "device": "cpu"}
    try:
        worker.train_worker({"config": config, "place": place}, send)
    except Exception as error:
        Path(f"{out} {rank}").write_text(f"{type(error).__name__}: {error}")

started = {}
for world, frozen, *given in json.loads(sys.argv[1]):
    for rank in range(world):
        if not (pid := os.fork()):
            train(rank, world, frozen, *given)
            os._exit(0)
        started[pid] = rank == frozen
for pid, hangs in started.items():
    if not hangs:
        os.waitpid(pid, 0)
for pid, hangs in started.items():
    if hangs:
        assert os.waitpid(pid, os.WUNTRACED)[1] >> 8 == signal.SIGSTOP
        os.kill(pid, signal.SIGKILL)
"""


def test_a_frozen_worker_is_named_with_its_machine(
    recipe: Callable[..., Any], place: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    """One of three, and the one that holds the store in which the others meet."""
    config = recipe({}, {"optim.global_batch": 6, "optim.norm_batch": 6})
    cases = {"middle": (3, 1), "first": (2, 0)}
    addresses = [f"tcp://127.0.0.1:{free_port()}" for _ in cases]
    given = [
        (*case, address, str(place(name).out_dir), str(place(name).cache_dir), config)
        for (name, case), address in zip(cases.items(), addresses, strict=True)
    ]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", GROUPS, json.dumps(given)]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=540, check=False
    )
    assert done.returncode == 0, done.stderr
    for name, (world, frozen) in cases.items():
        out = place(name).out_dir
        expected = f"rank {frozen} on machine {frozen} does not answer: it hangs, has died, or its network is cut"
        said = [out.with_name(f"{name} {rank}").read_text() for rank in range(world) if rank != frozen]
        assert said == [f"SilentRankError: {expected}"] * (world - 1)
        assert run_folder.read_failure(out) == {"cause": "lost", "reason": expected}
