"""A Ray session on this machine, from its start to its shutdown."""

import os
import signal
import time

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.ray]

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
import sys
from pathlib import Path

from cluster.spec import ClusterSpec
from orchestrator.running.ray_session import session
from orchestrator.store.folder import Store

with session(ClusterSpec(), Store(Path(sys.argv[-1]))) as machines:
    print(len(machines))
"""


def test_a_start_that_takes_longer_than_ray_waits_is_made_again(driver):
    """As on a busy machine: the first raylet never answers."""
    process, stopped, end = driver.start_script(WITHIN, driver.store), 0, time.monotonic() + 200
    while not stopped:
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        for pid, command in driver.processes().items():
            if "/raylet/raylet " in command and not stopped:
                os.kill(pid, signal.SIGSTOP)
                stopped = pid
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (0, "1\n"), err
    assert not driver.processes()


LISTENING = """
import sys
from pathlib import Path

import psutil

from cluster.spec import ClusterSpec
from orchestrator.running.ray_session import session
from orchestrator.store.folder import Store

with session(ClusterSpec(workers=2), Store(Path(sys.argv[-1]))):  # with several workers Ray has its dashboard
    import ray

    ray.get(ray.remote(lambda: None).remote())
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        for socket in process.net_connections("inet"):
            if socket.status == psutil.CONN_LISTEN:
                print(process.name(), socket.laddr.ip.removeprefix("::ffff:"))
"""


def test_ray_on_this_machine_can_be_reached_from_no_other(driver):
    done = driver.script(LISTENING, driver.store)
    assert done.code == 0, done.err
    listening = [line.rsplit(" ", 1) for line in done.out.splitlines()]
    assert {"gcs_server", "raylet", "ray::DashboardAgent"} <= {name for name, _ in listening}
    assert {address for _, address in listening} <= {"127.0.0.1", "::1"}, done.out
