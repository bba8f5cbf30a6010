"""The teacher's precision is its own; in bfloat16 its weights are cast once, and its outputs are those of autocast."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.trainer.deeper_networks import DEEPER
from trainer.config import ModelConfig, Term, parse
from trainer.data.batch import Batch
from trainer.distill import DISTILLERS, build_distillers
from trainer.models import MODELS, build_model
from trainer.models.base import EVERYTHING, SegModel
from trainer.models.norm import set_norm_batch
from trainer.training.teacher import Teacher

CLASSES, SIZE = 5, (64, 96)
SMALLEST = ("segformer_tiny", "pvtv2_mini", "lvt_mini")
NETWORKS = [
    name if name in SMALLEST else pytest.param(name, marks=pytest.mark.slow) for name in MODELS if name not in DEEPER
]


def network(name: str) -> SegModel:
    return build_model(ModelConfig(name=name), CLASSES).eval().requires_grad_(False)


class Casts(TorchDispatchMode):
    """Records which of the given tensors are cast inside."""

    def __init__(self, watched: set[int]) -> None:
        super().__init__()
        self.watched, self.found = watched, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._to_copy.default:
            self.found += args[0].untyped_storage().data_ptr() in self.watched
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_weights_that_are_cast_once_give_the_bits_of_autocast(name: str) -> None:
    model = network(name)
    image = torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        expected = copy.deepcopy(model)(image)
    teacher = Teacher(model, EVERYTHING, bf16=True)
    teacher(image)
    with Casts({parameter.untyped_storage().data_ptr() for parameter in model.parameters()}) as casts:
        found = teacher(image)
    assert casts.found == 0
    assert found.logits is not None and torch.equal(found.logits, expected.logits)
    for ours, theirs in zip((*found.features, *found.embeds), (*expected.features, *expected.embeds), strict=True):
        assert ours.dtype == theirs.dtype and torch.equal(ours, theirs)


@pytest.mark.parametrize("name", DISTILLERS)
@pytest.mark.parametrize(("ours", "theirs"), [("fp32", "bf16"), ("bf16", "fp32")])
def test_every_path_takes_a_teacher_of_another_precision(name: str, ours: str, theirs: str) -> None:
    student, model = build_model(ModelConfig(name="segformer_tiny"), CLASSES), network("segformer_mini")
    path = build_distillers({name: Term()}, student.channels, model.channels, 0)[name]
    set_norm_batch(student, 2)
    set_norm_batch(path, 2)
    generator = torch.Generator().manual_seed(0)
    image, keys = torch.rand(2, 3, *SIZE, generator=generator), torch.arange(2)
    batch = Batch(image, torch.randint(0, CLASSES, (2, *SIZE), generator=generator), keys)
    losses = []
    for precision in (theirs, "fp32"):
        taught = Teacher(copy.deepcopy(model), EVERYTHING, bf16=precision == "bf16")(image)
        with torch.autocast("cpu", torch.bfloat16, enabled=ours == "bf16"):
            losses.append(path(batch, student(image, keys), taught))
        losses[-1].backward()
    assert losses[0].dtype == torch.float32
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=0.1, abs=1e-6)


def test_a_teachers_precision_is_the_runs_unless_it_has_its_own() -> None:
    plain: dict[str, Any] = {
        "teacher": {"name": "segformer_b2", "train": {"epochs": 1}},
        "optim": {"precision": "fp32"},
    }
    given = parse({**plain, "teacher": {**plain["teacher"], "precision": "bf16"}})
    assert parse(plain).teacher_precision == parse({}).teacher_precision == "fp32"
    assert parse({**plain, "optim": {"precision": "bf16"}}).teacher_precision == "bf16"
    assert given.teacher_precision == "bf16"
    assert given.key != parse(plain).key
