"""A cluster of simulated nodes for the real Ray Tune, whose controller asks it for processes in place of Ray.

Real are Tune's controller, its searcher and callbacks, and all files that they write. Simulated are nodes, processes,
training and time: the clock jumps to the next event, and goes on by the CPU time that the driver takes in between, so
that a slow driver delays what it starts.
"""

from __future__ import annotations

import heapq
import itertools
import random
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from ray.air.execution._internal.tracked_actor import TrackedActor
from ray.exceptions import RayActorError

Steps = Iterator[tuple[float, Callable[[], dict[str, Any]]]]
"""What a process does: the seconds until each of its results, and what makes the result then."""
Program = Callable[[dict[str, Any]], Steps]
"""What the process of a trial with this config does."""

HANDLE = SimpleNamespace(get_auto_filled_metrics=SimpleNamespace(remote=lambda **debug_metrics: {}))
"""The only thing that Tune asks of a process itself, and not by its manager."""


@dataclass(eq=False)
class Node:
    """A machine that holds one process at a time."""

    is_up: bool = True
    actor: Actor | None = None


@dataclass(eq=False)
class Actor:
    """A process, or the request for one."""

    tracked: TrackedActor
    config: dict[str, Any]
    node: Node | None = None
    is_dead: bool = False
    steps: Steps | None = None
    since: float = 0.0
    """When the task began that it works on."""
    task: tuple[Callable[..., None] | None, bool] | None = None
    """What is told of the loss of the node, and whether it trains; None where it has nothing to do."""
    begun: int = 0
    """The number of tasks that it was given: the events of earlier ones are void."""


@dataclass
class Cluster:
    """The nodes, the clock and what is counted. Nodes are lost after times from an exponential distribution."""

    nodes: list[Node]
    program: Program
    lifetime_s: float
    boot_s: float
    start_s: float
    """Of a process until it can train."""
    seed: int = 0
    now: float = 0.0
    """Seconds on the simulated clock."""
    trained_s: float = 0.0
    repeated_s: float = 0.0
    """Work of the nodes that was lost with them."""
    started_s: float = 0.0
    losses: int = 0
    driver_s: float = 0.0
    """CPU seconds of the driver."""
    ups: list[tuple[float, int]] = field(default_factory=list)
    """Times at which the number of nodes changed, and by how much."""

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.events: list[tuple[float, int, Callable[[], bool]]] = []
        self._numbers = itertools.count()
        self._own_s = 0.0
        self._charged = time.process_time()
        self.ups.append((0.0, len(self.nodes)))
        for node in self.nodes:
            self._will_be_lost(node)

    def at(self, delay_s: float, event: Callable[[], bool]) -> None:
        """Let something happen; it says whether Tune has been told of it."""
        heapq.heappush(self.events, (self.now + delay_s, next(self._numbers), event))

    def charge(self) -> None:
        """Let the clock go on by the CPU time that the driver took since the last call."""
        used = time.process_time()
        taken = used - self._charged - self._own_s
        self.now += taken
        self.driver_s += taken
        self._charged, self._own_s = used, 0.0

    def own(self, began: float) -> None:
        """Leave out the CPU time since `began`: it is the simulation's."""
        self._own_s += time.process_time() - began

    def outside(self, call: Callable[[], Any]) -> Any:
        """What a process does costs the driver nothing."""
        began = time.process_time()
        found = call()
        self.own(began)
        return found

    def next_step(self, actor: Actor) -> tuple[float, Callable[[], dict[str, Any]]]:
        """Seconds and result of what a process does next."""
        actor.steps = actor.steps or self.program(actor.config)
        return next(actor.steps)

    def capacity_s(self, since: float, until: float) -> float:
        """Node-seconds between two times."""
        total, up, last = 0.0, 0, 0.0
        for at, change in [*self.ups, (until, 0)]:
            total += up * max(0.0, min(at, until) - max(last, since))
            up, last = up + change, at
        return total

    def reached(self, since: float, work_s: float) -> float:
        """When the nodes could have done so much work, without a gap and without a loss of work."""
        up, last = 0, since
        for at, change in self.ups:
            if at > last:
                if work_s <= up * (at - last):
                    break
                work_s -= up * (at - last)
                last = at
            up += change
        return last + work_s / up

    def _will_be_lost(self, node: Node) -> None:
        if self.lifetime_s:
            self.at(self.rng.expovariate(1 / self.lifetime_s), lambda: self._lose(node))

    def _lose(self, node: Node) -> bool:
        node.is_up = False
        self.losses += 1
        self.ups.append((self.now, -1))
        self.at(self.boot_s, lambda: self._boot(node))
        actor, node.actor = node.actor, None
        return actor is not None and SimulatedActors.manager.lost(actor)

    def _boot(self, node: Node) -> bool:
        node.is_up = True
        self.ups.append((self.now, 1))
        self._will_be_lost(node)
        return False


class SimulatedActors:
    """In place of Ray Tune's `RayActorManager`: the same calls, whose outcome is the cluster's."""

    manager: SimulatedActors
    """The one of the Tuner that runs."""

    def __init__(self, cluster: Cluster) -> None:
        SimulatedActors.manager = self
        self.cluster = cluster
        self._pending: dict[TrackedActor, Actor] = {}
        self._live: dict[TrackedActor, Actor] = {}
        self._failed: set[int] = set()
        self._live_actors_to_ray_actors_resources: dict[TrackedActor, tuple[Any, None]] = {}

    def next(self, timeout: float | None = None) -> bool:
        """Until the next event that Tune is told of, at most `timeout` seconds of the simulated clock."""
        cluster = self.cluster
        cluster.charge()
        end = cluster.now + (timeout or 0.0)
        while True:
            began = time.process_time()
            self._place()
            first = cluster.events[0][0] if cluster.events else end + 1
            cluster.own(began)
            if first > max(end, cluster.now):
                cluster.now = max(end, cluster.now)
                return False
            at, _, event = heapq.heappop(cluster.events)
            cluster.now = max(cluster.now, at)
            if event():
                return True

    def _place(self) -> None:
        """Start the processes that wait, in their order, on the nodes that are free."""
        if not self._pending:
            return
        free = (node for node in self.cluster.nodes if node.is_up and node.actor is None)
        for tracked, node in zip(list(self._pending), free, strict=False):
            actor = self._pending.pop(tracked)
            actor.node, node.actor = node, actor
            self._live[tracked] = actor
            self._live_actors_to_ray_actors_resources[tracked] = (HANDLE, None)
            self._begin(actor, self.cluster.start_s, lambda actor=actor: self._started(actor), None)

    def _started(self, actor: Actor) -> None:
        self.cluster.started_s += self.cluster.start_s
        if actor.tracked._on_start:
            actor.tracked._on_start(actor.tracked)

    def _begin(
        self,
        actor: Actor,
        seconds: float,
        done: Callable[[], None],
        on_error: Callable[..., None] | None,
        *,
        trains: bool = False,
    ) -> None:
        """Let a process work; `done` is called unless the work is given up or the node lost."""
        actor.begun += 1
        actor.since, actor.task, number = self.cluster.now, (on_error, trains), actor.begun

        def ends() -> bool:
            if actor.begun != number or actor.is_dead:
                return False
            actor.task = None
            self.cluster.trained_s += seconds if trains else 0.0
            done()
            return True

        self.cluster.at(seconds, ends)

    def lost(self, actor: Actor) -> bool:
        """The node of a process is gone. Tune learns of it by the task that the process has, or gets next."""
        actor.is_dead, actor.node = True, None
        if actor.task is None:
            return False
        on_error, trains = actor.task
        self.cluster.repeated_s += self.cluster.now - actor.since if trains else 0.0
        self._fail(actor, on_error)
        return True

    def _fail(self, actor: Actor, on_error: Callable[..., None] | None) -> None:
        error = RayActorError(error_msg="The actor died because its node has died.")
        self._failed.add(actor.tracked.actor_id)
        self._free(actor)
        if actor.tracked._on_error:
            actor.tracked._on_error(actor.tracked, error)
        if on_error:
            on_error(actor.tracked, error)

    def _free(self, actor: Actor) -> None:
        actor.begun += 1
        if actor.node is not None:
            actor.node.actor = None
        actor.node = actor.task = None
        self._live.pop(actor.tracked, None)
        self._live_actors_to_ray_actors_resources.pop(actor.tracked, None)

    def add_actor(
        self,
        cls: Any,
        kwargs: dict[str, Any],
        resource_request: Any,
        *,
        on_start: Callable[..., None] | None = None,
        on_stop: Callable[..., None] | None = None,
        on_error: Callable[..., None] | None = None,
    ) -> TrackedActor:
        """Ask for a process."""
        tracked = TrackedActor(uuid.uuid4().int, on_start=on_start, on_stop=on_stop, on_error=on_error)
        self._pending[tracked] = Actor(tracked, kwargs["config"])
        return tracked

    def remove_actor(self, tracked_actor: TrackedActor, kill: bool = False, stop_future: Any = None) -> bool:
        """End a process; whether its end will be told."""
        if tracked_actor in self._pending:
            del self._pending[tracked_actor]
            return False
        if tracked_actor.actor_id in self._failed:
            return False
        actor = self._live[tracked_actor]

        def stopped() -> bool:
            if tracked_actor in self._live:
                self._free(actor)
                if tracked_actor._on_stop:
                    tracked_actor._on_stop(tracked_actor)
            return True

        self.cluster.at(0.0, stopped)
        return True

    def schedule_actor_task(
        self,
        tracked_actor: TrackedActor,
        method_name: str,
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
        on_result: Callable[..., None] | None = None,
        on_error: Callable[..., None] | None = None,
        _return_future: bool = False,
    ) -> object:
        """Give a process something to do: to train until its next result, or to take another trial."""
        actor = self._live.get(tracked_actor)
        if actor is None:  # not started yet, or failed
            return None
        if method_name == "stop":
            return object()
        if actor.is_dead:
            self.cluster.at(0.0, lambda: self._fail(actor, on_error) or True)
            return None
        assert on_result is not None
        if method_name == "train":
            seconds, finish = self.cluster.outside(lambda: self.cluster.next_step(actor))
            self._begin(
                actor, seconds, lambda: on_result(tracked_actor, self.cluster.outside(finish)), on_error, trains=True
            )
        else:
            assert method_name == "reset" and args is not None, method_name
            actor.config, actor.steps = args[0], None
            self._begin(actor, 0.0, lambda: on_result(tracked_actor, True), on_error)
        return None

    def clear_actor_task_futures(self, tracked_actor: TrackedActor) -> None:
        """Give up what a process does."""
        if (actor := self._live.get(tracked_actor)) is not None:
            actor.begun += 1
            actor.task = None

    def is_actor_started(self, tracked_actor: TrackedActor) -> bool:
        """Whether a process has its place and has not failed, as far as Tune knows."""
        return tracked_actor in self._live

    def is_actor_failed(self, tracked_actor: TrackedActor) -> bool:
        """Whether Tune has been told of a process's failure."""
        return tracked_actor.actor_id in self._failed

    @property
    def num_live_actors(self) -> int:
        """Processes that have their place."""
        return len(self._live)

    @property
    def num_pending_actors(self) -> int:
        """Processes that wait for a place."""
        return len(self._pending)

    @property
    def num_total_actors(self) -> int:
        """Both."""
        return len(self._live) + len(self._pending)

    @property
    def num_actor_tasks(self) -> int:
        """Tasks that have not ended."""
        return sum(actor.task is not None for actor in self._live.values())

    def get_live_actors_resources(self) -> dict[str, float]:
        """Resources in use."""
        return {"CPU": float(len(self._live)), "GPU": float(len(self._live))}

    def cleanup(self) -> None:
        """End all processes."""
        for actor in list(self._live.values()):
            self._free(actor)
        self._pending.clear()
