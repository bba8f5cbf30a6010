"""A Ray session on this machine, up to its shutdown."""

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
