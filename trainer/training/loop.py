"""fit() and fit_together(): one loop that trains one run, or several side by side on one stream and one teacher.

A run's numbers are those it has alone: the runs share what is equal by construction, and nothing else.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from trainer import parallel
from trainer.config import NumericalError, TrainConfig, UserError, check_cohort, message_of
from trainer.data.prefetch import on_device
from trainer.data.stream import HostBatch
from trainer.files.failure import cause_of
from trainer.measure.device import synchronize
from trainer.place import Place
from trainer.training.member import Member, Report, Run
from trainer.training.memory import FreshThread, release_memory
from trainer.training.notice import Notice
from trainer.training.numerics import set_up
from trainer.training.schedule import steps_of
from trainer.training.shared import Shared
from trainer.training.step import Part, drawn, parts


def fit(config: TrainConfig, place: Place, *, report: Report = lambda metrics, checkpoint: None) -> dict[str, Any]:
    """Train one run to its end and return its result, resuming from what `place.out_dir` holds. A finished run whose
    last.pt is gone is trained again.

    `report(metrics, checkpoint)` is called by every worker after every epoch; worker 0 alone writes files.
    Raises UserError for a config or place that cannot be run, and NumericalError when a loss is not finite.
    """
    (result,) = fit_together([Run(config, place, report)])
    assert result is not None, "the report of a run that must finish returns nothing"
    return result


def fit_together(runs: Sequence[Run]) -> list[dict[str, Any] | None]:
    """Train runs side by side as `fit` does each; the result of each, None where it failed or was ended early.

    A run's failure ends that run alone where it has `ended`. It ends all, and is raised, where it would strike the
    others too: a full disk, a fault of the GPU, an error of what they share; and with several workers all errors but
    UserError and NumericalError, which strike all workers alike. Started again, all runs go on from their checkpoints:
    those that are ahead wait for those that are behind.
    Raises UserError when the runs cannot train side by side.
    """
    check_cohort([run.config for run in runs], [str(run.place.out_dir) for run in runs])
    first = runs[0].place
    assert all(replace(run.place, out_dir=first.out_dir, teacher=first.teacher) == first for run in runs)
    assert len({run.place.teacher for run in runs if run.config.active}) <= 1, "a cohort has one teacher"
    torch.set_num_threads(first.threads)
    cohort = Cohort(runs)
    set_up(runs[0].config.optim.precision, first.deterministic, cohort.shared.device)
    with contextlib.closing(cohort.call), contextlib.ExitStack() as recorders:
        for member in cohort.members:
            recorders.enter_context(member.recorder)
        cohort.set_up()
        cohort.train()
    return [member.result for member in cohort.members]


class Cohort:
    """The runs that train side by side, and what they share."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.shared = Shared(runs[0].place)
        self.members = [Member(run, self.shared) for run in runs]
        self.call = FreshThread()

    @property
    def left(self) -> list[Member]:
        """The members that are not over."""
        return [member for member in self.members if not member.over]

    def set_up(self) -> None:
        """Build and resume every member."""
        for member in self.members:
            self.do(member, in_all_workers, member.prepare)
            self.do(member, member.start)

    def train(self) -> None:
        """Train epoch by epoch, from that of the member that is furthest behind."""
        size = len(self.left)
        while True:
            for member in self.left:
                if member.trained:
                    self.do(member, member.finish, size)
            if not self.left:
                return
            at = min(member.at for member in self.left)
            self.train_epoch(*at, [member for member in self.left if member.at == at])

    def train_epoch(self, epoch: int, done: int, members: Sequence[Member]) -> None:
        """Train, validate and save one epoch of these members, of which `done` steps were done before."""
        shared, started = self.shared, time.perf_counter()
        notice = Notice(lambda: any(member.run.leaves() for member in members))
        for member in members:
            self.do(member, member.begin_epoch)
        steps = steps_of(members[0].config.optim, epoch, shared.steps_per_pass)[done:]
        for step, host in zip(steps, on_device(shared.stream.steps(steps), shared.device), strict=True):
            self.train_step(step, host, members)
            shared.monitor.sample()
            for member in self.left:
                self.do(member, member.recorder.poll)
            done += 1
            if all(member.over for member in members):
                return
            if notice.seen():
                synchronize(shared.device)
                for member, seconds in seconds_of(members, started):
                    self.do(member, member.save_part, done, seconds)
                for member in members:
                    self.do(member, member.leave)
                return
        synchronize(shared.device)
        for member in members:
            self.do(member, member.drain)
        load = shared.monitor.epoch()
        for member, seconds in seconds_of(members, started):
            self.do(member, member.end_epoch, seconds, load)

    def train_step(self, step: int, host: HostBatch, members: Sequence[Member]) -> None:
        """One optimiser step of each member on the same batch."""
        shared, of = self.shared, members[0]
        teacher = shared.teacher_of(member.distilled for member in members if not member.over)
        taught = partial(self.call, teacher) if teacher else None
        for part in parts(host, taught, shared.device, of.config.data.normalize, of.micro, len(of.data.classes)):
            going = [member for member in members if not member.over]
            for member, given in zip(going, self.call(with_masks, part, going), strict=True):
                self.do(member, member.take, given)
        for member in members:
            self.do(member, member.update, step)

    def do(self, member: Member, action: Callable[..., object], *given: object) -> None:
        """Call what is the member's own: a failure of it ends this member alone, unless it costs all."""
        if member.over:
            return
        started, cause = time.perf_counter(), ""
        try:
            self.call(action, *given)
        except Exception as error:
            cause = cause_of(error)
            if member.run.ended is None or costs_all(error):
                raise
            member.over = True
            member.recorder.settle()
            member.run.ended(error)
        member.own_s += time.perf_counter() - started
        if member.over:
            self._leave(member, cause)

    def _leave(self, member: Member, cause: str) -> None:
        """Free what the member held: its error is gone here, and with it the frames that held tensors."""
        member.free()
        if self.left:
            release_memory()
        if cause == "memory":
            self.call.renew()
        if not cause and member.run.ended is not None:
            member.run.ended(None)


def with_masks(part: Part, members: Sequence[Member]) -> list[Part]:
    """The part for each member: masks of equal networks are drawn once. A compiled network draws its own."""
    equal = Counter(member.network for member in members)
    students = {
        member.network: member.distilled.student
        for member in members
        if equal[member.network] > 1 and not member.place.compile
    }
    found = {network: drawn(part, student) for network, student in students.items()}
    return [found.get(member.network, part) for member in members]


def seconds_of(members: Sequence[Member], started: float) -> list[tuple[Member, float]]:
    """The members that are not over, with the seconds that each has trained since `started`."""
    seconds, own = time.perf_counter() - started, sum(member.own_s for member in members)
    going = [member for member in members if not member.over]
    # what was no member's own is divided equally; on a GPU that is also the wait for the kernels that all launched
    return [(member, member.own_s + (seconds - own) / len(going)) for member in going]


def in_all_workers(action: Callable[[], object]) -> None:
    """Call what each worker does alone. Where it raises UserError in one, it does in all."""
    said = ""
    try:
        action()
    except UserError as error:
        if parallel.world() == 1:
            raise
        said = message_of(error)
    if said := parallel.first_said(said):
        raise UserError(said)


def costs_all(error: Exception) -> bool:
    """Whether a failure of one member ends the others too."""
    if parallel.world() > 1:  # these two strike all workers alike; where one worker fails, the others wait for it
        return not isinstance(error, UserError | NumericalError)
    return cause_of(error) in ("disk", "device")
