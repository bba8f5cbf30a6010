"""fit(), end to end on seconds of work: the record it leaves, what it refuses, and what arms of a seed share."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainer.config import NumericalError, TrainConfig, UserError, parse, read_yaml
from trainer.data.batch import Batch
from trainer.data.scenes import write_scenes
from trainer.distill import DISTILLERS
from trainer.distill.base import Distiller
from trainer.files import checkpoint
from trainer.models.base import Channels, SegModel, SegOutput
from trainer.models.masks import KeyedMask
from trainer.place import Place
from trainer.training import member, shared
from trainer.training.learner import Learner
from trainer.training.loop import fit
from trainer.training.sources import run_id

Make = Callable[..., Any]
CSF_PEA = {"csf": {}, "pea": {}}


def nothing(metrics: dict[str, float], path: Path | None) -> None:
    """A report that nobody reads."""


def student_of(out: Path, name: str = "last.pt") -> dict[str, Tensor]:
    """The weights and statistics of the student in a run's last checkpoint."""
    model = checkpoint.load(out / name)["model"]
    return {key: value for key, value in model.items() if key.startswith("student.")}


def assert_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first
    assert list(first) == list(second)
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def epochs_of(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "epochs.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_the_folder_tells_everything(tiny: Make, place: Make) -> None:
    config: TrainConfig = tiny(CSF_PEA, {"eval": {"protocols": ["paper", "full"]}})
    reported: list[tuple[dict[str, float], Path | None]] = []
    result = fit(config, place(), report=lambda metrics, path: reported.append((metrics, path)))

    out = place().out_dir
    files = {"config.yaml", "epochs.jsonl", "result.json", "last.pt", "best.pt", "panel.png"}
    assert {path.name for path in out.iterdir()} == files
    assert parse(read_yaml(out / "config.yaml")) == config
    assert json.loads((out / "result.json").read_text()) == result
    epochs = epochs_of(out)
    assert [metrics for metrics, _ in reported] == epochs
    assert {path for _, path in reported} == {out / "last.pt"}
    assert [(epoch["epoch"], epoch["step"]) for epoch in epochs] == [(1, 4), (2, 8)]
    for epoch in epochs:
        names = {"loss", "loss/ce", "loss/csf", "loss/pea", "val/miou", "val/full/miou", "val/classes_present"}
        assert names <= set(epoch)
        assert epoch["loss"] == pytest.approx(epoch["loss/ce"] + epoch["loss/csf"] + epoch["loss/pea"], rel=1e-6)
        assert all(math.isfinite(value) for value in epoch.values())
        classes = [name for name in epoch if name.startswith("val/iou/")]
        assert len(classes) == epoch["val/classes_present"]
        assert epoch["val/miou"] == pytest.approx(sum(epoch[name] for name in classes) / 19)
    assert epochs[-1]["lr"] == pytest.approx(1e-3 / 8)
    best = max(epochs, key=lambda epoch: epoch["val/miou"])
    assert result["key"] == config.key
    assert result["run_id"] == run_id(config, place())
    assert result["last"] == epochs[-1]
    assert result["best"] == {"epoch": best["epoch"], "val/miou": best["val/miou"]}
    assert set(result["complexity"]) == {"params_m", "gmacs_paper", "gmacs", "latency_ms", "peak_mib"}
    assert all(cost > 0 for cost in result["complexity"].values())
    assert result["environment"]["workers"] == 1 and result["environment"]["threads"] == 1


@pytest.mark.slow
def test_the_best_checkpoint_is_the_student_alone(tiny: Make, place: Make) -> None:
    result = fit(tiny(CSF_PEA), place(), report=nothing)
    best = checkpoint.load(place().out_dir / "best.pt")
    assert best["val/miou"] == result["best"]["val/miou"]
    last = student_of(place().out_dir)
    assert {f"student.{name}" for name in best["model"]} == set(last)
    if best["epoch"] == 2:
        assert_equal({f"student.{name}": value for name, value in best["model"].items()}, last)


@pytest.mark.slow
def test_losses_fall_and_the_network_learns(tiny: Make, place: Make) -> None:
    config = tiny({}, {"optim.epochs": 8, "optim.lr": 3e-3, "eval.every": 3})
    fit(config, place(), report=nothing)
    epochs = epochs_of(place().out_dir)
    assert epochs[-1]["loss/ce"] < 0.8 * epochs[0]["loss/ce"]
    assert epochs[-1]["val/miou"] > 2.0
    assert [epoch["epoch"] for epoch in epochs if "val/miou" in epoch] == [3, 6, 8]


@pytest.mark.slow
def test_what_is_finished_is_not_done_again(tiny: Make, place: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fit(tiny(), place(), report=nothing)
    before = {path: path.stat().st_mtime_ns for path in place().out_dir.iterdir()}
    monkeypatch.setattr(member, "build_distilled", None)  # whoever builds, fails
    reported = []
    assert fit(tiny(), place(threads=2, micro_batch=2), report=lambda *seen: reported.append(seen)) == first
    assert reported == [(first["last"], place().out_dir / "last.pt")]
    assert {path: path.stat().st_mtime_ns for path in place().out_dir.iterdir()} == before


@pytest.mark.slow
def test_another_config_in_the_same_folder_is_refused(tiny: Make, place: Make) -> None:
    fit(tiny(), place(), report=nothing)
    before = student_of(place().out_dir)
    with pytest.raises(
        UserError, match=r"holds a run of another config \(seed is 0 there and 1 here\); choose another folder"
    ):
        fit(tiny({}, {"seed": 1}), place(), report=nothing)
    assert_equal(before, student_of(place().out_dir))


@pytest.mark.slow
@pytest.mark.parametrize("finished", [True, False])
def test_changed_data_is_another_run(finished: bool, tiny: Make, place: Make, tmp_path: Path) -> None:
    changes = {"data.name": "cityscapes", "data.options": {}, "optim.epochs": 2 if finished else 3}
    config = tiny({}, changes)
    where = place(data_root=tmp_path / "city", cache_dir=tmp_path / "cache")
    write_scenes(tmp_path / "city", train=8, val=2, seed=0, size=(64, 128))
    if finished:
        fit(config, where, report=nothing)
    else:
        interrupt(config, where, after=1)
    identity = run_id(config, where)
    write_scenes(tmp_path / "city", train=8, val=2, seed=1, size=(64, 128))
    assert run_id(config, where) != identity
    with pytest.raises(UserError, match=rf"was computed from other data, weights or numerics \(run {identity}, now"):
        fit(config, where, report=nothing)


class StoppedError(Exception):
    """What a test raises from a report."""


def interrupt(config: TrainConfig, where: Place, after: int) -> None:
    """Train until epoch `after` is reported."""

    def report(metrics: dict[str, float], path: Path | None) -> None:
        if metrics["epoch"] == after:
            raise StoppedError

    with pytest.raises(StoppedError):
        fit(config, where, report=report)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_fails_the_run_by_name_and_step(
    factor: float, tiny: Make, place: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    class Poison(Distiller):
        needs = frozenset({"embeds"})

        def __init__(self, student: Channels, teacher: Channels) -> None:
            super().__init__(student, teacher)
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, batch: Batch, student: SegOutput, teacher: SegOutput) -> Tensor:
            calls.append(1)
            return self.scale * (factor if len(calls) == 6 else 1.0)

    monkeypatch.setitem(DISTILLERS, "poison", Poison)
    with pytest.raises(NumericalError, match=r"^loss/poison is not finite at step 5$"):
        fit(tiny({"poison": {}}), place(), report=nothing)
    out = place().out_dir
    assert not (out / "result.json").exists()
    assert [epoch["epoch"] for epoch in epochs_of(out)] == [1]  # the epoch before it is kept, the one with it is not
    assert all(tensor.isfinite().all() for tensor in student_of(out).values())


@pytest.mark.slow
def test_a_learning_rate_that_explodes_is_a_numerical_error_too(tiny: Make, place: Make) -> None:
    with pytest.raises(NumericalError, match=r"loss/\w+ is not finite at step \d+"):
        fit(tiny(CSF_PEA, {"optim.lr": 1e30}), place(), report=nothing)


@pytest.mark.slow
def test_a_path_of_weight_0_is_the_plain_student_bit_for_bit(tiny: Make, place: Make) -> None:
    plain = tiny({}, {"teacher": None})
    silent = tiny({"csf": {"weight": 0.0}, "pea_ea": {"weight": 0, "options": {"nonsense": 1}}})
    fit(plain, place("plain"), report=nothing)
    fit(silent, place("silent"), report=nothing)
    first, second = (checkpoint.load(place(name).out_dir / "last.pt") for name in ("plain", "silent"))
    assert_equal(first["model"], second["model"])
    for name in ("loss", "loss/ce", "val/miou"):
        assert first["history"][-1][name] == second["history"][-1][name]


@pytest.mark.slow
def test_arms_of_a_seed_start_equal_and_see_equal_batches_and_masks(
    tiny: Make, place: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    start: list[dict[str, Tensor]] = []
    batches: list[list[Batch]] = []
    masks: list[list[Tensor]] = []
    accumulate, mask = Learner.accumulate, KeyedMask.of

    def watched_accumulate(self: Learner, batch: Batch, *rest: Any, **named: Any) -> None:
        if not batches[-1]:
            start.append({name: tensor.clone() for name, tensor in self.distilled.student.state_dict().items()})
        batches[-1].append(batch)
        accumulate(self, batch, *rest, **named)

    def watched_mask(self: Any, *arguments: Any) -> Tensor | None:
        drawn = mask(self, *arguments)
        if drawn is not None and not drawn.is_meta:  # the cost is counted on the meta device
            masks[-1].append(drawn)
        return drawn

    monkeypatch.setattr(Learner, "accumulate", watched_accumulate)
    monkeypatch.setattr(KeyedMask, "of", watched_mask)
    arms = [({}, 0), (CSF_PEA, 0), ({"pea_ea": {"weight": 3.0}}, 0), ({}, 1)]
    for arm, (distill, seed) in enumerate(arms):
        batches.append([])
        masks.append([])
        torch.manual_seed(arm)  # what torch drew before must not matter either
        fit(tiny(distill, {"seed": seed}), place(str(arm)), report=nothing)

    assert len(batches[0]) == 8
    assert any((drawn == 0).any() for drawn in masks[0])
    for arm in (1, 2):
        assert_equal(start[0], start[arm])
        for ours, theirs in zip(batches[0], batches[arm], strict=True):
            assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
        for ours, theirs in zip(masks[0], masks[arm], strict=True):
            assert torch.equal(ours, theirs)
    assert not any(torch.equal(value, start[3][name]) for name, value in start[0].items() if value.ndim > 1)
    assert not torch.equal(batches[0][0].keys, batches[3][0].keys)
    keys = torch.cat([batch.keys for batch in batches[0]])
    assert len(keys.unique()) == 32  # no epoch repeats the keys of another


@pytest.mark.slow
def test_epochs_use_every_learning_sample_once_and_no_other(
    tiny: Make, place: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    accumulate = Learner.accumulate

    def watched(self: Learner, batch: Batch, *rest: Any, **named: Any) -> None:
        seen.append(batch.image.flatten(1).double().sum(1))
        accumulate(self, batch, *rest, **named)

    monkeypatch.setattr(Learner, "accumulate", watched)
    config = tiny({}, {"data.select": 0.25, "data.augment": "none"})
    result = fit(config, place(), report=nothing)
    assert "select/miou" in result["last"]
    first, second = torch.cat(seen[:3]), torch.cat(seen[3:])
    assert len(first.unique()) == 12
    assert torch.equal(first.sort().values, second.sort().values)
    assert not torch.equal(first, second)


class Watched:
    """A teacher's build, watched: which of its modules were called, what it returned, and whether a graph was kept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.called: set[str] = set()
        self.outputs: list[SegOutput] = []
        self.graphs: set[bool] = set()
        build = shared.build_teacher

        def watched(*arguments: Any) -> SegModel | None:
            self.model = build(*arguments)
            assert self.model is not None
            for name, module in self.model.named_modules():
                module.register_forward_hook(lambda *_, name=name: self.called.add(name))
            self.model.register_forward_hook(lambda *call: self.outputs.append(call[-1]))
            self.model.register_forward_hook(lambda *_: self.graphs.add(torch.is_grad_enabled()))
            return self.model

        monkeypatch.setattr(shared, "build_teacher", watched)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "computed", "spared"),
    [("pea", {"patch_embed4", "block3.0"}, {"block4.0", "linear_pred"}), ("csf", {"block4.0"}, {"linear_pred"})],
)
def test_the_teacher_is_frozen_and_computes_only_what_is_needed(
    path: str,
    computed: set[str],
    spared: set[str],
    tiny: Make,
    place: Make,
    monkeypatch: pytest.MonkeyPatch,
    teacher_weights: Path,
) -> None:
    watched = Watched(monkeypatch)
    fit(tiny({path: {}}), place(), report=nothing)
    assert computed <= watched.called
    assert not spared & watched.called
    assert len(watched.outputs) == 8
    assert watched.graphs == {False}
    for output in watched.outputs:
        tensors = [tensor for tensor in (output.logits, *output.features, *output.embeds) if tensor is not None]
        assert tensors
        assert not any(tensor.requires_grad or tensor.grad_fn for tensor in tensors)
        assert not any(tensor.is_inference() for tensor in tensors)
    assert watched.model is not None
    assert not watched.model.training
    assert all(p.grad is None and not p.requires_grad for p in watched.model.parameters())
    assert_equal(checkpoint.load(teacher_weights)["model"], watched.model.state_dict())
    stored = checkpoint.load(place().out_dir / "last.pt")
    assert {".".join(name.split(".")[:2]) for name in stored["model"] if not name.startswith("student.")} == {
        f"paths.{path}"
    }
    trained = sum(len(group["params"]) for group in stored["optimiser"]["param_groups"])
    assert trained == sum(1 for name in stored["model"] if not name.endswith(("_mean", "_var", "_tracked")))


@pytest.mark.slow
def test_without_a_path_the_teacher_is_not_even_built(tiny: Make, place: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "Teacher", None)
    fit(tiny({}), place(), report=nothing)


@pytest.mark.slow
def test_a_teacher_that_misses_its_stated_miou_does_not_teach(tiny: Make, place: Make, tmp_path: Path) -> None:
    cache = {"cache_dir": tmp_path / "cache"}
    with pytest.raises(UserError, match=r"states 76.49 mIoU but reaches \d+\.\d\d on scenes val \(full protocol\)"):
        fit(tiny(CSF_PEA, {"teacher.miou": 76.49}), place(**cache), report=nothing)
    assert not place().out_dir.exists()
    (measured,) = (tmp_path / "cache" / "teachers").iterdir()
    stated = json.loads(measured.read_text())
    assert 0 <= stated < 20
    fit(tiny(CSF_PEA, {"teacher.miou": stated + 0.05}), place(**cache), report=nothing)
    assert len(list((tmp_path / "cache" / "teachers").iterdir())) == 1


@pytest.mark.slow
def test_bf16_is_close_and_keeps_its_parameters_in_float32(tiny: Make, place: Make) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        fit(tiny(CSF_PEA, {"optim.precision": precision}), place(precision), report=nothing)
        losses[precision] = epochs_of(place(precision).out_dir)
        floats = [v for v in student_of(place(precision).out_dir).values() if v.is_floating_point()]
        assert {value.dtype for value in floats} == {torch.float32}
    for full, half in zip(losses["fp32"], losses["bf16"], strict=True):
        assert half["loss"] == pytest.approx(full["loss"], rel=0.02)
        assert half["loss"] != full["loss"]


@pytest.mark.slow
def test_quarter_labels_and_class_weights_are_heard(tiny: Make, place: Make) -> None:
    losses = {}
    changed = {
        "plain": {},
        "quarter": {"data.train_labels": "quarter"},
        "auto": {"data.class_weights": "auto"},
        "equal": {"data.class_weights": [2.0] * 19},
    }
    for name, changes in changed.items():
        fit(tiny({}, {"optim.epochs": 1, **changes}), place(name), report=nothing)
        losses[name] = epochs_of(place(name).out_dir)[0]["loss/ce"]
    assert losses["quarter"] != losses["plain"] == pytest.approx(losses["quarter"], rel=0.05)
    assert losses["auto"] != losses["plain"] == pytest.approx(losses["auto"], rel=0.3)
    assert losses["equal"] == pytest.approx(losses["plain"], rel=1e-5)  # a common factor is divided out


def test_a_gpu_that_is_not_there_is_a_users_error(tiny: Make, place: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="device cuda needs a CUDA GPU, but torch sees none; use --device cpu"):
        fit(tiny(), place(device="cuda"), report=nothing)
    assert not place().out_dir.exists()
