"""A process that has no Ray, or no longer, asks nothing of it: Ray would start itself in it."""

import threading
import time

import ray

from orchestrator.running.machines import leaving


def test_without_ray_no_machine_leaves_and_none_is_started():
    leaving._watch.cache_clear()
    assert not leaving.leaves()
    end = time.monotonic() + 60
    while any(thread.name == "leaving" for thread in threading.enumerate()):
        assert time.monotonic() < end, "the watch goes on without Ray"
        time.sleep(0.01)
    assert not ray.is_initialized()
    leaving._watch.cache_clear()
