"""What is optimised how: decay and learning rates by part, the steps of AdamW and SGD, the clipped gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainer.config import ModelConfig, OptimConfig, Term, UserError, parse
from trainer.distill import build_distillers
from trainer.models import build_model
from trainer.models.base import Channels
from trainer.training.learner import Learner
from trainer.training.optimiser import parameter_groups
from trainer.training.task import Distilled

TEACHER = Channels((16, 32, 80, 128), (16, 32, 80, 128), (4, 8, 16, 32), 3)


def distilled(name: str = "segformer_tiny", *paths: str) -> Distilled:
    student = build_model(ModelConfig(name=name, drop_path=0, dropout=0), 3)
    terms = {path: Term() for path in paths}
    return Distilled(student, build_distillers(terms, student.channels, TEACHER, 0), 3)


def settings(module: Distilled, **optim: Any) -> dict[str, tuple[float, float]]:
    """By name of a parameter: its weight decay, and the factor of its learning rate."""
    groups, factors = parameter_groups(module, OptimConfig(weight_decay=0.01, **optim))
    found: dict[int, tuple[float, float]] = {}
    for group, factor in zip(groups, factors, strict=True):
        params, decay = group["params"], group["weight_decay"]
        assert isinstance(params, list)
        assert isinstance(decay, float)
        assert not found.keys() & {id(p) for p in params}, "a parameter is in two groups"
        found |= {id(p): (decay, factor) for p in params}
    return {name: found[id(p)] for name, p in module.named_parameters()}


def test_weights_decay_and_norms_and_biases_do_not_unless_asked() -> None:
    module = distilled("segformer_tiny", "csf")
    for name, (decay, factor) in settings(module).items():
        assert (decay, factor) == (0.01 if module.get_parameter(name).ndim > 1 else 0.0, 1.0)
    assert set(settings(module, decay_norms_and_biases=True).values()) == {(0.01, 1.0)}


def test_what_is_frozen_is_not_optimised() -> None:
    module = distilled()
    module.student.requires_grad_(False)
    module.student.get_parameter("linear_pred.weight").requires_grad_(True)
    (group,), factors = parameter_groups(module, OptimConfig())
    assert group["params"] == [module.student.get_parameter("linear_pred.weight")]
    assert factors == [1.0]


@pytest.mark.parametrize("name", ["segformer_tiny", "pvtv2_mini", "lvt_mini"])
def test_multipliers_are_of_the_backbone_the_head_and_the_projections(name: str) -> None:
    factors = {"backbone": 0.5, "head": 10.0, "distill": 3.0}
    found = settings(distilled(name, "csf", "pea"), lr_multipliers=factors)
    heads = {"linear_c1", "linear_pred", "linear_fuse", "neck", "head"}
    for parameter, (_, factor) in found.items():
        first, second, *_ = parameter.split(".")
        expected = 3.0 if first == "paths" else 10.0 if second in heads or "linear_c" in second else 0.5
        assert factor == expected, parameter
    assert {factor for _, factor in found.values()} == {0.5, 10.0, 3.0}


class Headless(nn.Module):
    """A student that does not say what its head is."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)


def test_a_multiplier_of_a_head_that_is_not_there_is_refused() -> None:
    module = Distilled(Headless(), {}, 3)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"optim\.lr_multipliers\.head is 10, but the student has no parameters of a"):
        Learner(module, OptimConfig(lr_multipliers={"head": 10.0}), {})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kinds", "plain"),
    [([], []), (["norms"], ["norm"]), (["norms", "biases"], ["norm", "bias"]), (["positions"], ["pos_embed"])],
)
def test_no_decay_names_kinds_of_parameters(kinds: list[str], plain: list[str]) -> None:
    module = distilled()
    module.student.pos_embed = nn.Parameter(torch.zeros(1, 4, 2))
    norms = {
        f"{name}.{leaf}"
        for name, owner in module.named_modules()
        if isinstance(owner, nn.LayerNorm | nn.BatchNorm2d)
        for leaf in ("weight", "bias")
    }
    for name, (decay, _) in settings(module, no_decay=kinds).items():
        kind = "norm" if name in norms else "bias" if name.endswith("bias") else name.split(".")[-1]
        assert decay == (0.0 if kind in plain else 0.01), name


def gradients(learner: Learner, scale: float = 1.0) -> list[Tensor]:
    """Set a gradient of every trained parameter, and return copies."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for parameter in learner.distilled.parameters():
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator)
        found.append(parameter.grad.clone())
    return found


def test_the_step_is_sgd_with_momentum_and_decay() -> None:
    """v = 0.9 v + (g + decay * w); w -= lr * v, twice."""
    optim = OptimConfig(optimiser="sgd", weight_decay=0.1, lr_multipliers={"head": 10.0})  # type: ignore[arg-type]
    learner = Learner(distilled(), optim, {})
    weight = learner.distilled.student.get_parameter("linear_pred.weight")
    expected, speed = weight.detach().clone(), torch.zeros_like(weight)
    for step in range(2):
        gradients(learner)
        assert weight.grad is not None
        speed = 0.9 * speed + weight.grad + 0.1 * expected
        expected = expected - 10 * 1e-2 * speed
        learner.update(1e-2, step)
    torch.testing.assert_close(weight.detach(), expected)


def test_each_part_steps_at_its_own_rate() -> None:
    """Adam's first step is lr against the sign of the gradient."""
    module = distilled("segformer_tiny", "pea")
    optim = OptimConfig(weight_decay=0.0, lr_multipliers={"head": 10.0, "distill": 2.0})  # type: ignore[arg-type]
    learner = Learner(module, optim, {"pea": Term()})
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    gradients(learner)
    learner.update(1e-3, 0)
    for name, parameter in module.named_parameters():
        factor = 2 if name.startswith("paths") else 10 if name.startswith("student.linear_") else 1
        moved = (parameter.detach() - before[name]).abs()
        torch.testing.assert_close(moved, torch.full_like(moved, factor * 1e-3), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("norm", "clipped"), [(0.5, True), (1e9, False)])
def test_the_whole_gradient_is_clipped_to_a_norm(norm: float, clipped: bool) -> None:
    optim = OptimConfig(optimiser="sgd", momentum=0.0, weight_decay=0.0, clip_norm=norm)
    learner = Learner(distilled("segformer_tiny", "pea"), optim, {"pea": Term()})
    before = [p.detach().clone() for p in learner.distilled.parameters()]
    whole = torch.cat([g.flatten() for g in gradients(learner)])
    learner.update(1.0, 0)
    moved = torch.cat([(b - p.detach()).flatten() for b, p in zip(before, learner.distilled.parameters(), strict=True)])
    expected = whole * norm / whole.norm() if clipped else whole
    torch.testing.assert_close(moved, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("optim", "message"),
    [
        ({"momentum": 0.9}, "momentum is of sgd, but optimiser is adamw; remove momentum or set it to null"),
        ({"no_decay": ["norms"], "decay_norms_and_biases": True}, "remove decay_norms_and_biases: true"),
        ({"no_decay": ["norms", "norms"]}, "no_decay must name each kind once"),
        ({"no_decay": ["norm"]}, "optim.no_decay.0: Input should be 'norms', 'biases' or 'positions'"),
        ({"lr_multipliers": {"heads": 10}}, "optim.lr_multipliers.heads: unknown key; did you mean 'head'?"),
        ({"lr_multipliers": {"head": 0}}, "optim.lr_multipliers.head: Input should be greater than 0"),
        ({"clip_norm": 0}, "optim.clip_norm: Input should be greater than 0, but got 0"),
        ({"warmup_iterations": -1}, "optim.warmup_iterations: Input should be greater than or equal to 0"),
        ({"optimiser": "sdg"}, "optim.optimiser: Input should be 'adamw' or 'sgd', but got 'sdg'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(optim: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        parse({"optim": optim})
    assert message in str(error.value)
