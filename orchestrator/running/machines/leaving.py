"""Whether the machine of this process is about to be taken away: by a notice of its cloud, or because Ray drains it."""

from __future__ import annotations

import functools
import logging
import threading
import time

import ray
from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION

from orchestrator.running.machines.spot_notice import cloud
from trainer.config import message_of

LOOK_S = 5.0
"""So often AWS advises to ask; Google Cloud's notice comes 30 s before the end."""
LOG = logging.getLogger(__name__)


def leaves() -> bool:
    """Whether this machine is about to be taken away. Ray places nothing on it then, and what it runs does not count as
    failed when it ends. The first call in a process begins to watch."""
    return _watch().is_set()


@functools.cache
def _watch() -> threading.Event:
    ask, found = cloud(), threading.Event()

    def look() -> None:
        if not ray.is_initialized():  # to be asked, Ray would start itself in this process
            return
        try:
            if (left_s := ask()) is not None:
                _drain(left_s)
            if ray.get_runtime_context().get_node_id() in ray._private.state.state.get_draining_nodes():
                found.set()
        except Exception as error:  # the service or the head may be out of reach for a while
            LOG.warning("%s", message_of(error))

    def watch() -> None:
        while ray.is_initialized() and not found.wait(LOOK_S):
            look()

    look()
    threading.Thread(target=watch, daemon=True, name="leaving").start()
    return found


def _drain(left_s: float) -> None:
    """Tell Ray that this machine ends in so many seconds."""
    context = ray.get_runtime_context()
    ray._raylet.GcsClient(address=context.gcs_address).drain_node(
        context.get_node_id(),
        DRAIN_NODE_REASON_PREEMPTION,
        "the cloud takes it back",
        int((time.time() + left_s) * 1000),
    )
