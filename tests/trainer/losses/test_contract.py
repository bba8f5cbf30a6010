"""What every entry of LOSSES promises: value and gradient by the plain definition, and what they do not depend on."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from trainer.config import IGNORE, Term, UserError, parse
from trainer.losses import LOSSES, TaskLoss, build_losses
from trainer.training.task import count_pixels, pixel_weight

CLASSES, SIZE = 4, (6, 10)
CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in LOSSES),
    ("focal", {"gamma": 0.5}),
    ("ohem", {"threshold": 0.3}),
    ("dice", {"smooth": 0.1}),
]
Pixels = list[tuple[list[float], int]]
"""The probabilities and the class of each labelled pixel of an image."""


def build(name: str, options: dict[str, Any] | None = None) -> TaskLoss:
    return build_losses({name: Term(options=options or {})})[name]


def pictures(n: int = 3) -> tuple[Tensor, Tensor]:
    """Logits (n, P, H, W) in float64 and labels: image 0 lacks a class, the last one has no label at all."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(n, CLASSES, *SIZE, generator=generator, dtype=torch.float64)
    label = torch.randint(0, CLASSES, (n, *SIZE), generator=generator)
    label[0] = label[0].clamp(max=CLASSES - 2)
    label[:, :2, :3] = IGNORE
    label[-1] = IGNORE
    return logits, label


def labelled(logits: Tensor, label: Tensor) -> list[Pixels]:
    probabilities = logits.softmax(1).permute(0, 2, 3, 1).flatten(1, 2)
    return [
        [(p, k) for p, k in zip(image.tolist(), truth.flatten().tolist(), strict=True) if k != IGNORE]
        for image, truth in zip(probabilities, label, strict=True)
    ]


def of_pixels(images: list[Pixels], weights: Tensor, loss: Callable[[float], float]) -> float:
    return sum(float(weights[k]) * loss(p[k]) for image in images for p, k in image)


def of_classes(images: list[Pixels], loss: Callable[[list[float], list[int]], float]) -> float:
    total = 0.0
    for image in images:
        present = sorted({k for _, k in image})
        values = [loss([p[k] for p, _ in image], [int(truth == k) for _, truth in image]) for k in present]
        total += sum(values) / max(1, len(values))
    return total


def log(p: float) -> float:
    return float(torch.tensor(p, dtype=torch.float64).log())


def dice(p: list[float], g: list[int], smooth: float) -> float:
    overlap = sum(a * b for a, b in zip(p, g, strict=True))
    return 1 - (2 * overlap + smooth) / (sum(a * a for a in p) + sum(g) + smooth)


def lovasz(p: list[float], g: list[int]) -> float:
    """Equation 9 of the paper: sorted errors times the increments of 1 - IoU of the growing set of wrong pixels."""
    errors = [1 - a if b else a for a, b in zip(p, g, strict=True)]
    order = sorted(range(len(errors)), key=lambda i: -errors[i])
    truth, before, total = {i for i, b in enumerate(g) if b}, 0.0, 0.0
    for n in range(1, len(order) + 1):
        wrong = set(order[:n])
        jaccard = 1 - len(truth - wrong) / len(truth | wrong)
        total, before = total + errors[order[n - 1]] * (jaccard - before), jaccard
    return total


def defined(name: str, options: dict[str, Any], images: list[Pixels], weights: Tensor) -> float:
    """The sum of a loss, pixel by pixel in Python."""
    if name == "ce":
        return of_pixels(images, weights, lambda p: -log(p))
    if name == "focal":
        return of_pixels(images, weights, lambda p: -((1 - p) ** options.get("gamma", 2.0)) * log(p))
    if name == "ohem":
        return of_pixels(images, weights, lambda p: -log(p) if p < options.get("threshold", 0.7) else 0.0)
    if name == "dice":
        return of_classes(images, lambda p, g: dice(p, g, options.get("smooth", 1.0)))
    assert name == "lovasz", f"write the definition of {name} here"
    return of_classes(images, lovasz)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_value_is_the_definitions(name: str, options: dict[str, Any], weighted: bool) -> None:
    logits, label = pictures()
    weights = torch.linspace(0.5, 2.0, CLASSES, dtype=torch.float64)
    found = build(name, options)(logits, label, weights if weighted else None)
    assert found.shape == ()
    expected = defined(name, options, labelled(logits, label), weights if weighted else torch.ones(CLASSES))
    assert found.item() == pytest.approx(expected, rel=1e-9)
    assert found.item() > 0


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_gradient_is_that_of_the_value(name: str, options: dict[str, Any]) -> None:
    logits, label = pictures()
    loss = build(name, options)
    assert torch.autograd.gradcheck(lambda x: loss(x, label, None), logits.requires_grad_(), eps=1e-7, atol=1e-6)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_ignored_pixels_count_nowhere(name: str, options: dict[str, Any]) -> None:
    logits, label = pictures()
    other = torch.where((label == IGNORE)[:, None], torch.full_like(logits, 30.0).mul_(-1), logits)
    other[:, 0][label == IGNORE] = 30.0
    loss = build(name, options)
    assert loss(other, label, None).item() == loss(logits, label, None).item()
    other.requires_grad_()
    loss(other, label, None).backward()
    assert other.grad is not None
    assert torch.count_nonzero(other.grad.permute(0, 2, 3, 1)[label == IGNORE]) == 0


@pytest.mark.parametrize(("name", "options"), CASES)
def test_without_a_label_the_loss_is_0_with_a_graph(name: str, options: dict[str, Any]) -> None:
    logits = pictures()[0].requires_grad_()
    loss = build(name, options)(logits, torch.full((3, *SIZE), IGNORE), None)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert torch.count_nonzero(logits.grad) == 0


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_sure_student_has_finite_gradients(name: str, options: dict[str, Any]) -> None:
    label = pictures()[1]
    logits = 200 * torch.nn.functional.one_hot(label.clamp(max=CLASSES - 1), CLASSES).permute(0, 3, 1, 2).float()
    logits.requires_grad_()
    build(name, options)(logits, label, None).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("micro", [1, 2])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_micro_batches_add_up_to_the_whole(name: str, options: dict[str, Any], micro: int) -> None:
    """The divisor is of the global batch: labelled pixels or images."""
    logits, label = pictures(4)
    loss, weights = build(name, options), torch.linspace(0.5, 2.0, CLASSES, dtype=torch.float64)
    divisor = pixel_weight(count_pixels(label, CLASSES), weights) if loss.per == "pixel" else len(label)
    gradients = []
    for size in (len(label), micro):
        whole = logits.clone().requires_grad_()
        for part, truth in zip(whole.split(size), label.split(size), strict=True):
            (loss(part, truth, weights) / divisor).backward()
        gradients.append(whole.grad)
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_has_no_parameters_and_says_its_source_and_options(name: str) -> None:
    loss = build(name)
    assert not loss.state_dict()
    assert not list(loss.parameters())
    module = inspect.getmodule(type(loss))
    assert module is not None
    assert name == "ce" or "arXiv" in (module.__doc__ or "")
    for option in inspect.signature(type(loss)).parameters:
        assert f"`{option}`" in (inspect.getdoc(type(loss)) or "")


def test_focal_without_focus_and_ohem_without_threshold_are_cross_entropy() -> None:
    logits, label = pictures()
    plain = build("ce")(logits, label, None).item()
    assert build("focal", {"gamma": 0})(logits, label, None).item() == pytest.approx(plain, rel=1e-12)
    assert build("ohem", {"threshold": 1})(logits, label, None).item() == pytest.approx(plain, rel=1e-12)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"dise": Term()}, "unknown loss 'dise'; did you mean 'dice'?"),
        ({"focal": Term(options={"alpha": 1})}, "loss.focal: unknown option 'alpha'; known: gamma"),
        (
            {"focal": Term(options={"gamma": -1})},
            "loss.focal.options: gamma must be a number from 0 to 100, but got -1",
        ),
        ({"ohem": Term(options={"threshold": 2})}, "threshold must be a number from 1e-06 to 1, but got 2"),
    ],
)
def test_what_is_refused(terms: dict[str, Term], message: str) -> None:
    with pytest.raises(UserError) as error:
        build_losses(terms)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ({}, "loss must have a task loss with a weight above 0"),
        ({"ce": {"weight": 0}}, "loss must have a task loss with a weight above 0"),
        ({"kd": {}}, "kd is in loss and in distill; rename the knowledge path"),
    ],
)
def test_a_config_has_a_task_loss(loss: dict[str, Any], message: str) -> None:
    teacher = {"teacher": {"train": {}}, "distill": {"kd": {}}}
    with pytest.raises(UserError) as error:
        parse({"loss": loss, **teacher})
    assert message in str(error.value)
