"""Settings of the optimiser and the task losses in whole runs: resumed, side by side, by two workers, compiled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.config import TrainConfig, UserError, check_cohort, teacher_run
from trainer.deploy.open import Wanted, open_student
from trainer.deploy.remeasure import remeasure
from trainer.files import checkpoint
from trainer.files.run_folder import is_longer
from trainer.models.base import Channels, SegModel
from trainer.place import Place
from trainer.training.average import Average
from trainer.training.build import check
from trainer.training.loop import fit, fit_together
from trainer.training.member import Run
from trainer.training.schedule import check_warmup, learning_rate, steps_of
from trainer.weights import open_weights

Make = Callable[..., Any]
ALL: dict[str, Any] = {
    "optim.optimiser": "sgd",
    "optim.warmup_iterations": 3,
    "optim.clip_norm": 1.0,
    "optim.lr_multipliers": {"head": 10.0, "distill": 2.0},
    "optim.no_decay": ["norms"],
    "optim.iterations": 10,  # of four a pass: epochs of 3, 3 and 4 steps
    "optim.epochs": 3,
    "optim.ema_decay": 0.9,
    "loss": {"ce": {"weight": 0.5}, "ohem": {}, "focal": {}, "dice": {"weight": 0.2}, "lovasz": {}},
}
PATHS = {"csf": {}, "pea": {"weight": 0.7}}


def nothing(metrics: dict[str, float], path: Path | None) -> None:
    """A report that nobody reads."""


@pytest.fixture(scope="module")
def config(tiny: Make) -> TrainConfig:
    return tiny(PATHS, ALL)


@pytest.fixture(scope="module")
def undisturbed(config: TrainConfig, scenes_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing stopped, in micro-batches of two."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    fit(config, Place(out_dir=out, cache_dir=scenes_cache, device="cpu", micro_batch=2), report=nothing)
    return out


def test_epochs_of_iterations_follow_each_other_to_the_end(config: TrainConfig) -> None:
    spans = [steps_of(config.optim, epoch, 4) for epoch in range(3)]
    assert [step for span in spans for step in span] == list(range(10))
    assert [len(span) for span in spans] == [3, 3, 4]
    assert learning_rate(config.optim, 10, 4) == 0
    assert learning_rate(config.optim, 9, 4) > 0


@pytest.mark.slow
def test_iterations_go_on_over_passes_of_the_data(config: TrainConfig, undisturbed: Path) -> None:
    history = checkpoint.load(undisturbed / "last.pt")["history"]
    assert [epoch["step"] for epoch in history] == [3, 6, 10]
    assert {f"loss/{name}" for name in (*ALL["loss"], *PATHS)} <= history[0].keys()


@pytest.mark.slow
def test_stopped_after_every_epoch(config: TrainConfig, undisturbed: Path, place: Make, same_run: Make) -> None:
    def stop(metrics: dict[str, float], path: Path | None) -> None:
        raise InterruptedError

    for _ in range(3):
        with pytest.raises(InterruptedError):
            fit(config, place(micro_batch=2), report=stop)
    fit(config, place(micro_batch=2), report=nothing)
    same_run(place().out_dir, undisturbed)


@pytest.mark.slow
def test_beside_a_run_of_another_optimiser(
    config: TrainConfig, undisturbed: Path, tiny: Make, place: Make, same_run: Make
) -> None:
    other = tiny({}, {"optim.iterations": 10, "optim.epochs": 3, "loss": {"ce": {}, "dice": {}}, "teacher": None})
    runs = [Run(c, place(name, micro_batch=2), nothing) for name, c in (("all", config), ("other", other))]
    fit_together(runs)
    same_run(place("all").out_dir, undisturbed)
    fit(other, place("alone", micro_batch=2), report=nothing)
    same_run(place("other").out_dir, place("alone").out_dir)


WORKER = """
from pathlib import Path
from trainer.config import parse
from trainer.training.loop import fit
from trainer.models.base import SegModel
from trainer.place import Place

place = Place(out_dir=Path(job["out"]), cache_dir=Path(job["cache"]), device="cpu")
fit(parse(job["config"]), place, report=lambda *_: None)
"""


@pytest.mark.slow
def test_two_workers_equal_two_micro_batches(
    config: TrainConfig, undisturbed: Path, in_workers: Make, tmp_path: Path, scenes_cache: Path
) -> None:
    out = tmp_path / "two"
    plain = config.model_dump(mode="json")
    in_workers(WORKER, {"config": plain, "out": str(out), "cache": str(scenes_cache)})
    ours, theirs = (checkpoint.load(folder / "last.pt") for folder in (out, undisturbed))
    for part in ("model", "raw_student"):
        for name, tensor in theirs[part].items():
            assert torch.equal(ours[part][name], tensor), name
    for epoch, other in zip(ours["history"], theirs["history"], strict=True):
        assert all(epoch[name] == other[name] for name in other if name.startswith("loss") or name == "lr")


@pytest.mark.slow
def test_the_average_is_what_is_validated_saved_and_deployed(undisturbed: Path, scenes_cache: Path) -> None:
    state = checkpoint.load(undisturbed / "last.pt")
    averaged = {name.removeprefix("student."): t for name, t in state["model"].items() if name.startswith("student.")}
    assert averaged.keys() == state["raw_student"].keys()
    assert any(not torch.equal(averaged[name], tensor) for name, tensor in state["raw_student"].items())
    deployed = open_student(undisturbed / "last.pt", Wanted(), "cpu").model.state_dict()
    assert all(torch.equal(deployed[name], tensor) for name, tensor in averaged.items())
    for name, epoch in (("last.pt", state["history"][-1]), ("best.pt", state["best"])):
        metrics, _ = remeasure(undisturbed / name, None, scenes_cache)
        assert metrics["val/miou"] == pytest.approx(epoch["val/miou"], abs=1e-6)


class Own(SegModel):
    """A network of a family whose weights have no other names."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = Channels((), (), (), classes=1)
        self.layer = torch.nn.Linear(2, 2)


def test_of_a_network_of_any_family_the_average_is_read(tmp_path: Path) -> None:
    averaged, trained = Own(), Own()
    student = {f"student.{name}": tensor for name, tensor in averaged.state_dict().items()}
    checkpoint.save(tmp_path / "last.pt", {"model": student, "raw_student": trained.state_dict()})
    found = open_weights(tmp_path / "last.pt", Own()).state
    assert torch.equal(found["layer.weight"], averaged.layer.weight)


def test_the_average_follows_weights_and_statistics() -> None:
    """d = min(decay, (1 + n) / (10 + n)); counters are the student's."""
    student = torch.nn.BatchNorm2d(2)
    average = Average(student, 0.5)  # type: ignore[arg-type]
    expected = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    for step in range(20):
        with torch.no_grad():
            for tensor in (*student.parameters(), student.running_mean, student.running_var):
                tensor.copy_(torch.randn(2, generator=generator))
            student.num_batches_tracked += 1
        average.update(student, step)  # type: ignore[arg-type]
        d = min(0.5, (1 + step) / (10 + step))
        for name, tensor in student.state_dict().items():
            whole = name == "num_batches_tracked"
            expected[name] = tensor.clone() if whole else d * expected[name] + (1 - d) * tensor
    assert step == 19
    for name, tensor in average.model.state_dict().items():
        torch.testing.assert_close(tensor, expected[name])
    assert not any(p.requires_grad for p in average.model.parameters())


def test_a_weight_that_two_layers_share_is_averaged_once() -> None:
    student = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    student[1].weight = student[0].weight
    average = Average(student, 0.5)  # type: ignore[arg-type]
    before = student[0].weight.detach().clone()
    with torch.no_grad():
        student[0].weight.add_(1.0)
    average.update(student, 0)  # type: ignore[arg-type]
    for layer in average.model:  # type: ignore[attr-defined]
        torch.testing.assert_close(layer.weight, before + 0.9)  # 1 - min(0.5, 1 / 10)


def test_runs_whose_epochs_end_elsewhere_do_not_train_side_by_side(tiny: Make) -> None:
    some = [
        tiny({}, {"optim.iterations": n, "optim.epochs": 2, "optim.ema_decay": d}) for n, d in ((8, None), (9, 0.9))
    ]
    with pytest.raises(UserError, match=r"optim\.iterations is 9 there and 8 in one"):
        check_cohort(some, ["one", "other"])
    alike = tiny({}, {"optim.iterations": 8, "optim.epochs": 2, "optim.optimiser": "sgd", "loss": {"dice": {}}})
    check_cohort([some[0], alike], ["one", "other"])


def test_a_warm_up_longer_than_the_run_is_refused(tiny: Make) -> None:
    with pytest.raises(UserError, match=r"at most the steps of the run \(8: 2 epochs of 4\) but got 9"):
        check_warmup(tiny({}, {"optim.warmup_iterations": 9}).optim, 4)
    with pytest.raises(UserError, match="iterations must be at least the epochs"):
        tiny({}, {"optim.warmup_iterations": 9, "optim.iterations": 8})


def test_a_wrong_loss_is_refused_where_structures_are_checked(tiny: Make, scenes_cache: Path) -> None:
    with pytest.raises(UserError, match="unknown loss 'dise'; did you mean 'dice'"):
        check(tiny({}, {"loss.dise": {}}), scenes_cache)
    assert list(tiny({}, {"loss.dice": {}}).loss) == ["ce", "dice"]
    assert list(tiny({}, {"loss.dice": {}, "loss.ce": None}).loss) == ["dice"]
    with pytest.raises(UserError, match=r"loss\.dice\.weight: unknown task loss 'dice'"):
        tiny({}, {"loss.dice.weight": 0.5})


def test_epochs_of_iterations_are_not_those_of_a_shorter_run(tiny: Make) -> None:
    """An epoch is a part of the run: with more of them each is another."""
    for changes, longer in (({}, True), ({"optim.iterations": 8}, False)):
        short, long = (tiny({}, {"optim.schedule": "reference", "optim.epochs": n, **changes}) for n in (2, 4))
        assert is_longer(long, short) == longer


def test_a_teachers_epochs_are_passes_unless_it_has_iterations(tiny: Make) -> None:
    changes = {"optim.iterations": 80, "optim.epochs": 2, "teacher": {"train": {"epochs": 5}}}
    passes, steps = (tiny(PATHS, changes | more) for more in ({}, {"teacher.train.iterations": 60}))
    for config, iterations in ((passes, None), (steps, 60)):
        teacher = teacher_run(config)
        assert teacher is not None
        assert (teacher.optim.epochs, teacher.optim.iterations) == (5, iterations)
    wrong = tiny(PATHS, changes | {"optim.warmup_iterations": 70, "teacher.train.iterations": 60})
    with pytest.raises(
        UserError, match=r"^teacher\.train: iterations must be at least the epochs \(5\), which are its"
    ):
        teacher_run(wrong)
