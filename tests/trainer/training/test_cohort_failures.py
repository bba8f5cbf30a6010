"""A failure costs one of the runs side by side; what strikes all is raised; what cannot train together is refused."""

from __future__ import annotations

import errno
import json
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainer.training.cohorts import Side, arms, nothing
from trainer.config import NumericalError, TrainConfig, UserError
from trainer.data.batch import Batch
from trainer.data.stream import Stream
from trainer.distill import DISTILLERS
from trainer.distill.base import Distiller
from trainer.models.base import Channels, SegOutput
from trainer.training import member
from trainer.training.learner import Learner
from trainer.training.loop import fit, fit_together

pytestmark = pytest.mark.slow

Make = Callable[..., Any]


class Faulty(Distiller):
    """A path that fails, or spoils its loss, in the second step of the second epoch."""

    needs = frozenset({"embeds"})
    fault: Callable[[], float]
    calls: list[int]

    def __init__(self, student: Channels, teacher: Channels) -> None:
        super().__init__(student, teacher)
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, batch: Batch, student: SegOutput, teacher: SegOutput) -> Tensor:
        self.calls.append(threading.get_ident())
        return self.scale * (type(self).fault() if len(self.calls) == 6 else 1.0)


def no_memory() -> float:
    torch.empty(1 << 50)
    return 1.0


def raising(error: Exception) -> Callable[[], float]:
    def fail() -> float:
        raise error

    return fail


@pytest.fixture
def faulty(tiny: Make, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, TrainConfig]]:
    """faulty(fault) -> the arms, and between them one that fails."""

    def make(fault: Callable[[], float]) -> dict[str, TrainConfig]:
        monkeypatch.setattr(Faulty, "fault", staticmethod(fault), raising=False)
        monkeypatch.setattr(Faulty, "calls", [], raising=False)
        monkeypatch.setitem(DISTILLERS, "faulty", Faulty)
        found = arms(tiny, {})
        return {"alone": found["alone"], "faulty": tiny({"faulty": {}}), "csf and pea": found["csf and pea"]}

    return make


@pytest.mark.parametrize(
    ("fault", "kind", "told"),
    [
        (lambda: float("nan"), NumericalError, "loss/faulty is not finite at step 5"),
        (no_memory, RuntimeError, "can't allocate memory"),
        (raising(ValueError("a mistake of a path")), ValueError, "a mistake of a path"),
    ],
    ids=["nan", "memory", "bug"],
)
def test_a_failure_costs_its_member_alone(
    fault: Callable[[], float],
    kind: type[Exception],
    told: str,
    faulty: Make,
    side: Side,
    alone: Make,
    same_run: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configs = faulty(fault)
    learners: dict[str, weakref.ref[Learner]] = {}
    left: list[int] = []
    start = member.Member.start

    def watched(self: member.Member) -> None:
        start(self)
        assert self.learner is not None
        learners[self.out.name] = weakref.ref(self.learner)

    def ended_beside(metrics: dict[str, float], path: Path | None) -> None:
        left.append(sum(found() is not None for found in learners.values()))

    monkeypatch.setattr(member.Member, "start", watched)
    *runs, last = (side.run(name, config) for name, config in configs.items())
    fit_together([*runs, replace(last, report=ended_beside)])

    error = side.ended.pop("faulty")
    assert isinstance(error, kind) and told in str(error)
    assert side.ended == {"alone": None, "csf and pea": None}
    for name in side.ended:
        same_run(side.root / name, alone(configs[name]))
    assert left == [3, 1]  # the last epoch of the last member is reported when all others have let go of their tensors
    kept = (side.root / "faulty" / "epochs.jsonl").read_text().splitlines()
    assert len(kept) == 1 and not (side.root / "faulty" / "result.json").exists()


def test_after_a_failed_allocation_the_others_go_on_in_another_thread(faulty: Make, side: Side) -> None:
    """oneDNN refuses smaller allocations in the thread of a failed one."""
    configs = faulty(no_memory)
    threads: list[int] = []
    take = member.Member.take

    def watched(self: member.Member, *given: Any) -> None:
        threads.append(threading.get_ident())
        take(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(member.Member, "take", watched)
        side.train(configs)
    here = threading.get_ident()
    # three members in the first epoch and the first step of the second; the second one fails in the step after it
    assert threads[:17] == [here] * 17
    assert len(set(threads[17:])) == 1 and threads[17] != here


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
    ],
    ids=["disk", "device"],
)
def test_what_strikes_all_is_raised(error: Exception, faulty: Make, side: Side) -> None:
    with pytest.raises(type(error)) as raised:
        side.train(faulty(raising(error)))
    assert raised.value is error
    assert side.ended == {}


def test_an_error_of_the_stream_is_raised(tiny: Make, side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    assemble = Stream._assemble

    def broken(self: Stream, epoch: int, order: Any, k: int) -> Any:
        if (epoch, k) == (1, 2):
            raise OSError(errno.EIO, "Input/output error")
        return assemble(self, epoch, order, k)

    monkeypatch.setattr(Stream, "_assemble", broken)
    with pytest.raises(OSError, match="Input/output error"):
        side.train({"one": tiny(), "two": tiny({"pea": {}})})
    assert side.ended == {} and side.epochs == {"one": [1], "two": [1]}


def test_mistakes_found_at_set_up_cost_their_member_alone(
    tiny: Make, side: Side, alone: Make, same_run: Make, tmp_path: Path
) -> None:
    fit(tiny({}, {"optim.lr": 7e-3}), side.place("folder"), report=nothing)
    configs = {
        "one": tiny({"pea": {}}),
        "folder": tiny({"csf": {}}),
        "miou": tiny({"csf": {}}, {"teacher.miou": 99.0}),
        "weights": tiny({"csf": {}}, {"student.init": str(tmp_path / "none.pt")}),
        "groups": tiny({}, {"optim.norm_batch": 4}),
        "two": tiny(),
    }
    ended = side.train(configs, micro_batch=2)
    told = {name: str(error) for name, error in ended.items() if error is not None}
    assert all(isinstance(ended[name], UserError) for name in told)
    assert dict.fromkeys(("folder", "miou", "weights", "groups"), True) == {
        "folder": "holds a run of another config" in told.pop("folder"),
        "miou": "states 99.00 mIoU but reaches" in told.pop("miou"),
        "weights": "cannot read the weights" in told.pop("weights"),
        "groups": "micro_batch 2 would split BatchNorm groups" in told.pop("groups"),
    }
    assert not told
    for name in ("one", "two"):
        same_run(side.root / name, alone(configs[name], micro_batch=2))


def test_a_run_whose_id_is_not_the_planned_one_is_not_trained(tiny: Make, side: Side) -> None:
    run, other = side.run("one", tiny()), side.run("two", tiny({"pea": {}}))
    fit_together([replace(run, run_id="0123456789ab"), other])
    told = str(side.ended["one"])
    identity = json.loads((side.root / "two" / "result.json").read_text())["run_id"]
    assert told.startswith("the run was planned as 0123456789ab but is ")
    assert told.endswith("changed while the run waited; run the same command again")
    assert not (side.root / "one").exists()
    assert fit_together([replace(other, run_id=identity, ended=None)])[0] is not None


def test_runs_on_other_batches_are_refused(tiny: Make, side: Side) -> None:
    with pytest.raises(UserError, match=r"two cannot train side by side with .*one, for seed is 1 there and 0 in"):
        side.train({"one": tiny(), "two": tiny({}, {"seed": 1})})
    assert not (side.root / "one").exists() and side.ended == {}
