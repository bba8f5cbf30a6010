"""A machine that is about to be taken away: runs are saved after a step, and go on from there with the same numbers."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.trainer.training.cohorts import Side, arms, nothing
from trainer.config import NumericalError, TrainConfig
from trainer.deploy.open import Wanted, open_student, origin
from trainer.files import checkpoint
from trainer.files.failure import failure_of
from trainer.place import Place
from trainer.training import notice
from trainer.training.continued import continue_run
from trainer.training.learner import Learner
from trainer.training.loop import fit, fit_together
from trainer.training.member import PreemptedError, Run

pytestmark = pytest.mark.slow

Make = Callable[..., Any]
STEPS = 4
"""Steps of an epoch of `tiny`."""
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "paths": ({"csf": {}, "pea": {}}, {}),
    "average": ({"kd": {}}, {"optim.ema_decay": 0.9}),
    "iterations": ({}, {"optim.iterations": 7, "optim.schedule": "to_end"}),
}


def after(looks: int) -> Callable[[], bool]:
    """A notice that is seen at so many looks: one after each step, and one at the end of an epoch."""
    looked = itertools.count(1)
    return lambda: next(looked) >= looks


def leave(config: TrainConfig, place: Place, looks: int) -> str:
    """Train until a notice is seen at so many looks of this start; what the run's end says."""
    with pytest.raises(PreemptedError) as ended:
        fit_together([Run(config, place, nothing, leaves=after(looks))])
    assert failure_of(ended.value).cause == "preempted"
    return str(ended.value)


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_was_saved_within_epochs_equals_one_that_was_not(
    case: str, tiny: Make, side: Side, alone: Make, same_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, taken = tiny(*CASES[case]), []
    expected = alone(config)
    update = Learner.update

    def watched(self: Learner, lr: float, step: int) -> None:
        taken.append(step)
        update(self, lr, step)

    monkeypatch.setattr(Learner, "update", watched)
    place = side.place("run", checkpoint_every=10)
    total = config.optim.iterations or 2 * STEPS
    assert leave(config, place, 1).endswith("step 1 of epoch 1 was saved")
    assert leave(config, place, 1).endswith("step 2 of epoch 1 was saved")
    assert leave(config, place, 3 if config.optim.iterations else 4).endswith("step 1 of epoch 2 was saved")
    state = checkpoint.load(place.out_dir / "last.pt")
    assert len(state["history"]) == 1 and state["epoch_part"]["steps"] == 1
    fit(config, place, report=nothing)
    assert taken == list(range(total)), "no step is computed twice"
    same_run(place.out_dir, expected)
    assert "epoch_part" not in checkpoint.load(place.out_dir / "last.pt")


def test_a_run_saved_after_the_last_step_of_an_epoch_only_validates(
    tiny: Make, side: Side, alone: Make, same_run: Make
) -> None:
    config, place = tiny({"csf": {}}), side.place("run")
    assert leave(config, place, 2 * STEPS + 1).endswith(f"step {STEPS} of epoch 2 was saved")
    fit(config, place, report=nothing)
    same_run(place.out_dir, alone(config))


def test_a_checkpoint_within_an_epoch_can_be_opened_and_taken_over(tiny: Make, side: Side) -> None:
    changes = {"optim.schedule": "reference", "optim.epochs": 1}
    config, short = tiny({}, changes), side.place("short")
    leave(config, short, 2)
    known = origin(short.out_dir / "last.pt")
    assert known["run_id"] and not {"epoch", "val/miou"} & known.keys()
    open_student(short.out_dir / "last.pt", Wanted(), "cpu")
    longer, whole = tiny({}, changes | {"optim.epochs": 2}), side.place("whole")
    continue_run(short.out_dir, longer, side.place("longer"))
    assert fit(longer, side.place("longer"), report=nothing)["best"] == fit(longer, whole, report=nothing)["best"]


def test_seconds_before_the_notice_count(tiny: Make, side: Side) -> None:
    config, place = tiny(), side.place("run")
    leave(config, place, 3)
    before = checkpoint.load(place.out_dir / "last.pt")["epoch_part"]["seconds"]
    assert fit(config, place, report=nothing)["seconds"] > before > 0


def test_members_are_saved_at_their_own_steps_and_meet_again(
    tiny: Make, side: Side, alone: Make, same_run: Make
) -> None:
    configs = arms(tiny, {"optim.epochs": 2, "eval.every": 1})
    names = list(configs)
    leave(configs[names[1]], side.place(names[1]), 3)
    leave(configs[names[2]], side.place(names[2]), STEPS + 1)
    side.ended = {}
    together = [side.run(name, config) for name, config in configs.items()]
    leaves = after(2)
    fit_together([Run(run.config, run.place, run.report, run.ended, leaves=leaves) for run in together])
    assert all(isinstance(error, PreemptedError) for error in side.ended.values() if error is not None)
    assert any(side.ended.values())
    side.train(configs)
    for name, config in configs.items():
        same_run(side.root / name, alone(config))


def test_a_loss_that_is_not_finite_is_not_saved(tiny: Make, side: Side) -> None:
    place = side.place("run")
    with pytest.raises(NumericalError, match="is not finite at step"):
        fit_together([Run(tiny({}, {"optim.lr": 1e30}), place, nothing, leaves=after(3))])
    assert not (place.out_dir / "last.pt").exists()


LEAVE_ONE = """
import itertools
from pathlib import Path
from trainer.config import parse
from trainer.place import Place
from trainer.training import notice
from trainer.training.loop import fit_together
from trainer.training.member import PreemptedError, Run

notice.LOOK_S = 0.0
place = Place(out_dir=Path(job["out"]), cache_dir=Path(job["cache"]), device="cpu")
asked = itertools.count(1)

def leaves():
    return rank == 1 and next(asked) >= 3

try:
    fit_together([Run(parse(job["config"]), place, lambda *_: None, leaves=leaves)])
except PreemptedError as error:
    Path(job["out"]).with_name(f"said {rank}").write_text(str(error))
"""


FOLDER_EACH = """
from pathlib import Path
from trainer.config import parse
from trainer.place import Place
from trainer.training.loop import fit

out = Path(job["root"]) / str(rank)
fit(parse(job["config"]), Place(out_dir=out, cache_dir=Path(job["cache"]), device="cpu"), report=lambda *_: None)
"""


def test_workers_whose_folders_differ_go_on_from_the_furthest_checkpoint(
    tiny: Make, side: Side, in_workers: Callable[..., None], scenes_cache: Path
) -> None:
    config = tiny({"csf": {}})
    leave(config, side.place("0", micro_batch=2), 2)
    shutil.copytree(side.root / "0", side.root / "1")
    leave(config, side.place("1", micro_batch=2), 5)
    job = {"config": config.model_dump(mode="json"), "root": str(side.root), "cache": str(scenes_cache)}
    in_workers(FOLDER_EACH, job)
    whole = side.place("whole", micro_batch=2)
    fit(config, whole, report=nothing)
    for name in ("last.pt", "best.pt"):
        ours, theirs = (checkpoint.load(folder / name) for folder in (side.root / "0", whole.out_dir))
        assert all((ours["model"][key] == tensor).all() for key, tensor in theirs["model"].items()), name


def test_workers_ask_each_other_every_few_seconds_and_seldom_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first steps are only queued, and take a GPU longer than the host sees."""
    clock, asked = [0.0], []
    monkeypatch.setattr(notice, "parallel", SimpleNamespace(world=lambda: 2, all_said=lambda own: [own, own]))
    monkeypatch.setattr(notice.time, "monotonic", lambda: clock[0])
    watch = notice.Notice(lambda: bool(asked.append(clock[0])))
    for step in range(300):
        clock[0] += 0.001 if step < 3 else 0.3
        assert not watch.seen()
    apart = [later - earlier for earlier, later in pairwise(asked)]
    assert max(apart) <= 2 * notice.LOOK_S
    assert all(between > 0.7 * notice.LOOK_S for between in apart[8:])


def test_all_workers_leave_after_the_same_step_and_one_goes_on(
    tiny: Make, side: Side, in_workers: Callable[..., None], scenes_cache: Path
) -> None:
    config = tiny({"csf": {}, "pea": {}})
    place = side.place("run", micro_batch=2)
    in_workers(
        LEAVE_ONE,
        {"config": config.model_dump(mode="json"), "out": str(place.out_dir), "cache": str(scenes_cache)},
    )
    said = [(side.root / f"said {rank}").read_text() for rank in (0, 1)]
    assert said == ["the machine was taken away with notice; step 3 of epoch 1 was saved"] * 2
    fit(config, place, report=nothing)
    whole = side.place("whole", micro_batch=2)
    fit(config, whole, report=nothing)
    ours, theirs = (checkpoint.load(folder.out_dir / "last.pt") for folder in (place, whole))
    assert all((ours["model"][name] == tensor).all() for name, tensor in theirs["model"].items())
    for epoch, other in zip(ours["history"], theirs["history"], strict=True):
        assert epoch["loss"] == pytest.approx(other["loss"], rel=1e-12)
