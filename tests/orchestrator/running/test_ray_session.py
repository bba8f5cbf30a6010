"""A Ray session on this machine, from its start to its shutdown."""

import time

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.ray]

PATIENCE_S = 240

FREED = """
import gc
import sys
from pathlib import Path

import ray

from cluster.spec import ClusterSpec
from orchestrator.running.ray_session import session
from orchestrator.store.folder import Store


class Cycle:
    def __init__(self):
        self.itself, self.held = self, ray.put(1)

    def __del__(self):
        freed.append(ray.is_initialized())


freed = []
with session(ClusterSpec(), Store(Path(sys.argv[-1]))):
    gc.disable()
    Cycle()
print(freed, gc.isenabled())
"""


def test_objects_of_ray_in_garbage_are_freed_before_the_shutdown(driver):
    """Ray ends the process, with exit code 1, where another thread frees one during it."""
    done = driver.script(FREED, driver.store)
    assert (done.code, done.out) == (0, "[True] True\n"), done.err


WITHIN = """
import os, shlex, sys
from pathlib import Path

from cluster.spec import ClusterSpec
from orchestrator.running.ray_session import LOOPBACK, session
from orchestrator.store.folder import Store

os.environ.update(LOOPBACK)  # before the import of Ray
from ray._private import services

start, raylets = services.start_ray_process, []


def stopped_at_first(command, kind, *more, **options):
    if kind == services.ray_constants.PROCESS_TYPE_RAYLET:
        raylets.append(command)
        if len(raylets) == 1:  # stopped before it is a raylet: it can have answered nothing
            command = ["sh", "-c", f"kill -STOP $$; exec {shlex.join(command)}"]
    return start(command, kind, *more, **options)


services.start_ray_process = stopped_at_first
with session(ClusterSpec(), Store(Path(sys.argv[-1]))) as machines:
    print(len(machines), len(raylets))
"""


def test_a_start_that_takes_longer_than_ray_waits_is_made_again(driver):
    """As on a busy machine: the first raylet never answers."""
    done = driver.script(WITHIN, driver.store)
    machines, raylets = map(int, done.out.split())
    assert (done.code, machines) == (0, 1) and raylets > 1, done.err
    end = time.monotonic() + PATIENCE_S
    while driver.processes() and time.monotonic() < end:  # Ray's agents take their time
        time.sleep(0.2)
    assert not driver.processes()


LISTENING = """
import sys, time
from pathlib import Path

import psutil

from cluster.spec import ClusterSpec
from orchestrator.running.ray_session import session
from orchestrator.store.folder import Store

with session(ClusterSpec(workers=2), Store(Path(sys.argv[-1]))):  # with several workers Ray has its dashboard
    import ray

    ray.get(ray.remote(lambda: None).remote())
    found, end = set(), time.monotonic() + float(sys.argv[2])
    while not {"gcs_server", "raylet", "ray::DashboardAgent"} <= {name for name, _ in found} and time.monotonic() < end:
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
            try:
                for socket in process.net_connections("inet"):
                    if socket.status == psutil.CONN_LISTEN:
                        found.add((process.name(), socket.laddr.ip.removeprefix("::ffff:")))
            except psutil.NoSuchProcess:
                pass
    for name, address in found:
        print(name, address)
"""


def test_ray_on_this_machine_can_be_reached_from_no_other(driver):
    done = driver.script(LISTENING, driver.store, PATIENCE_S)
    assert done.code == 0, done.err
    listening = [line.rsplit(" ", 1) for line in done.out.splitlines()]
    assert {"gcs_server", "raylet", "ray::DashboardAgent"} <= {name for name, _ in listening}
    assert {address for _, address in listening} <= {"127.0.0.1", "::1"}, done.out
