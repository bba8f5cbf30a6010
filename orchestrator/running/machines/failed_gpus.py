"""Failed GPUs of one machine: actors without work hold them, so that Ray gives them to no further run of any study.

Ray gives out a machine's GPUs as it likes, and the one that fails its runs is soon free again and takes the next run.
The actors belong to the driver, and end with it.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

HUNT_S = 20.0
"""So long actors ask for the GPUs. Those that get others keep them from runs meanwhile."""
PAUSE_S = 60.0
"""From then on so long none asks: another process has a failed GPU."""
ONE_GPU = "transkd-failed-gpu"
"""The name of each actor, before the launch and a number: other drivers count them."""
NAMESPACE = "transkd"
_NUMBERS = itertools.count()
"""A name is Ray's until its actor has ended, which takes a while."""


class Holder:
    """Has one GPU and does nothing with it."""

    def gpus(self) -> list[str]:
        """Ray's id of the GPU."""
        return own_gpus()

    def stay(self) -> None:
        """Never returns: its caller hears of the end of this process alone."""
        threading.Event().wait()


def own_gpus() -> list[str]:
    """Ray's ids of the GPUs that this process was given, sorted; none without Ray, which would start if asked."""
    return sorted(map(str, ray.get_gpu_ids())) if ray.is_initialized() else []


def launches_that_hold() -> set[str]:
    """The launches, of all studies, that have such actors now."""
    named = ray.util.list_named_actors(all_namespaces=True)
    return {each["name"].split("/")[1] for each in named if each["name"].startswith(f"{ONE_GPU}/")}


class Hold:
    """Holds GPUs of one machine, whose id Ray has as `node`, for a launch."""

    def __init__(self, launch: str, node: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.launch, self.node = launch, node
        self._clock = clock
        self._actors: dict[Any, Any] = {}
        """What an actor will answer -> the actor."""
        self._held: dict[str, tuple[Any, Any]] = {}
        """The wanted GPUs that are held, and the others that are until these are -> the actor, and its end."""
        self._begun, self._paused_until = clock(), clock()

    def look(self, wanted: set[str], most: int) -> bool:
        """Whether all of the GPUs are held by now. Asks for more, for `most` in all, while one is not."""
        for answer in _ready(list(self._actors)):
            self._take(answer)
        ended = _ready([end for _, end in self._held.values()])
        self._held = {gpu: each for gpu, each in self._held.items() if each[1] not in ended}
        if wanted <= self._held.keys():
            self._release(wanted)
            return True
        now = self._clock()
        if now < self._paused_until:
            return False
        if not self._actors and len(self._held) < most:
            if self._held.keys() <= wanted:
                self._begun = now
            self._ask()
        elif now - self._begun > HUNT_S:
            self._release(wanted)
            self._paused_until = now + PAUSE_S
        return False

    def release(self) -> None:
        """Let runs have the GPUs again."""
        self._release(set())

    def _ask(self) -> None:
        actor = (
            ray.remote(Holder)
            .options(
                name=f"{ONE_GPU}/{self.launch}/{self.node}/{next(_NUMBERS)}",
                namespace=NAMESPACE,
                num_cpus=0,
                num_gpus=1,
                scheduling_strategy=NodeAffinitySchedulingStrategy(self.node, soft=False),
            )
            .remote()
        )
        self._actors[actor.gpus.remote()] = actor

    def _take(self, answer: Any) -> None:
        actor = self._actors.pop(answer)
        try:
            (gpu,) = ray.get(answer)
        except RayError:  # it has died, with its machine or alone
            return
        self._held[gpu] = actor, actor.stay.remote()

    def _release(self, wanted: set[str]) -> None:
        """End the actors that hold none of the GPUs, and those that still ask."""
        others = [actor for gpu, (actor, _) in self._held.items() if gpu not in wanted]
        for actor in (*self._actors.values(), *others):
            ray.kill(actor)
        self._actors = {}
        self._held = {gpu: each for gpu, each in self._held.items() if gpu in wanted}


def _ready(answers: list[Any]) -> list[Any]:
    return ray.wait(answers, num_returns=len(answers), timeout=0)[0] if answers else []
