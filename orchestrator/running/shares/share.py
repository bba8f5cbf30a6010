"""Share: a driver's part in the sharing of a Ray cluster: how many of its runs may be in flight now."""

from __future__ import annotations

import contextlib
import math
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from cluster.concurrency import footprint
from cluster.spec import ClusterSpec
from orchestrator.running.shares.share_keeper import NAME, NAMESPACE, KeeperActor
from trainer.config import message_of

LOOK_S = 1.0
"""An answer of the keeper is asked for again after so many seconds."""
BEAT_S = 5.0
"""The keeper hears from a driver at least so often, whatever its main thread does."""
ANSWER_S = 30.0
"""Timeout for an answer, which may have to wait for the start of the keeper's process."""
WITHOUT_S = 60.0
"""Where the keeper does not answer, the study goes on without it for so many seconds."""

NO_ANSWER = RayError, ValueError
"""What Ray raises where the keeper fails, is gone or is not there."""
NEVER = -math.inf


class Share:
    """Asks the keeper on behalf of a driver that may have `slots` runs at once on its own. As a context manager it
    tells the keeper when the driver ends."""

    def __init__(self, spec: ClusterSpec, slots: int, say: Callable[[str], None]) -> None:
        self.spec = spec
        self.slots = slots
        self.say = say
        """Is told once that the study goes on without shares."""
        self.tell: Callable[[str], None] = lambda why: None
        """Is told why the study waits, and of the end of that, by an empty text."""
        self._driver = uuid.uuid4().hex
        self._keeper: Any = None
        self._in_flight = self._wanted = self._may = 0
        self._need, self._held = footprint(spec), dict[str, float]()
        self._why = self._told = ""
        self._asked = self._without_until = NEVER
        self._asking = threading.Lock()
        self._closed = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True, name="share")

    def __enter__(self) -> Share:
        self._heart.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closed.set()
        self._heart.join()  # Ray ends the process where a thread uses it during its shutdown
        with contextlib.suppress(*NO_ANSWER):
            if self._keeper is not None:
                ray.get(self._keeper.leave.remote(self._driver), timeout=ANSWER_S)

    def holds_back(
        self, in_flight: int, more: int, need: dict[str, float] | None = None, held: dict[str, float] | None = None
    ) -> bool:
        """Whether the study, with `more` runs that could start beside those in flight, has to wait for other studies.
        Tells when that begins, changes and ends. `need`: Ray resources of the next run; `held`: those of all in flight.
        """
        wanted = min(self.slots, in_flight + more)
        need = self._need if need is None else need
        held = {name: in_flight * amount for name, amount in need.items()} if held is None else held
        with self._asking:
            now = in_flight, wanted, need, held
            changed = now != (self._in_flight, self._wanted, self._need, self._held)
            self._in_flight, self._wanted, self._need, self._held = now
            if changed or time.monotonic() - self._asked > LOOK_S:
                self._ask()
            is_held = self._may <= in_flight < wanted
            why = self._why if is_held else ""
        if why != self._told:
            self._told = why
            self.tell(why)
        return is_held

    def _beat(self) -> None:
        while not self._closed.wait(BEAT_S):
            with self._asking:
                if time.monotonic() - self._asked > BEAT_S:
                    self._ask()

    def _ask(self) -> None:
        """Hear from the keeper how many runs may be in flight; all that are wanted where it does not answer."""
        if time.monotonic() >= self._without_until:
            try:
                self._may, self._why = self._answer()
            except NO_ANSWER as error:  # sharing is no reason to end a study
                if self._without_until == NEVER:
                    why = message_of(error.cause if isinstance(error, RayTaskError) else error)
                    self.say(
                        f"what shares out the cluster does not answer ({why}): runs start without regard to other "
                        "studies, and it is asked again every minute"
                    )
                self._keeper = None
                self._may, self._why = self.slots, ""
                self._without_until = time.monotonic() + WITHOUT_S
        self._asked = time.monotonic()

    def _answer(self) -> tuple[int, str]:
        if self._keeper is None:
            options = {"name": NAME, "namespace": NAMESPACE, "lifetime": "detached", "get_if_exists": True}
            on_head = {"resources": {"node:__internal_head__": 0.001}}
            self._keeper = ray.remote(KeeperActor).options(num_cpus=0, **options, **on_head).remote()
        demand = {
            "need": self._need,
            "extra": {
                name: self._held.get(name, 0.0) - self._in_flight * self._need.get(name, 0.0)
                for name in {*self._need, *self._held}
            },
            "in_flight": self._in_flight,
            "wanted": self._wanted,
            "priority": self.spec.priority,
        }
        kinds = self.spec.machine_types.values()
        limits = {"CPU": self.spec.max_cpus, "GPU": self.spec.max_gpus}
        if kinds:
            limits = {"CPU": sum(kind.cpus * kind.most for kind in kinds), "GPU": sum(k.gpus * k.most for k in kinds)}
        grows_to = {name: most for name, most in limits.items() if most is not None}
        may, why = ray.get(self._keeper.ask.remote(self._driver, demand, grows_to), timeout=ANSWER_S)
        return may, why


def someone_waits() -> bool:
    """In a run's process: whether a study of the cluster waits for its share. Where no keeper answers, none does."""
    try:
        return bool(ray.get(ray.get_actor(NAME, NAMESPACE).someone_waits.remote(), timeout=LOOK_S))
    except NO_ANSWER:  # sharing is no reason to end a run
        return False


@contextlib.contextmanager
def shared(spec: ClusterSpec, slots: int, say: Callable[[str], None]) -> Iterator[Share | None]:
    """The share of a driver in the cluster that it has joined; None where Ray is its own."""
    if spec.address == "local":
        yield None
        return
    with Share(spec, slots, say) as share:
        yield share
