"""Distances of distributions against the published code's values, and the paths and options that use them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.data.batch import Batch
from trainer.distill import DISTILLERS
from trainer.distill.csf import DISTANCES, CrossSelectiveFusion
from trainer.distill.cwd import ChannelWiseDistillation, ChannelWiseFeatureDistillation
from trainer.distill.dist import CorrelationDistillation
from trainer.distill.divergences import channel_divergence, channel_square, pixel_divergence
from trainer.distill.kd import ResponseDistillation
from trainer.distill.losses import mean_squared_difference
from trainer.models.base import Channels, SegOutput

STRIDES = (4, 8, 16, 32)
STUDENT = Channels((8, 16, 24, 32), (8, 16, 24, 32), STRIDES, 19)
TEACHER = Channels((8, 24, 32, 40), (8, 24, 32, 40), STRIDES, 20)


def batch_of(n: int) -> Batch:
    return Batch(torch.zeros(n, 3, 32, 48), torch.zeros(n, 32, 48, dtype=torch.int64), torch.arange(n))


def draw(*shape: int, seed: int, scale: float = 1.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


def logits(student: Tensor, teacher: Tensor) -> tuple[Batch, SegOutput, SegOutput]:
    return batch_of(len(student)), SegOutput(student, (), ()), SegOutput(teacher, (), ())


def features(channels: Channels, seed: int, n: int = 2) -> SegOutput:
    maps = (draw(n, c, 32 // s, 48 // s, seed=seed + s) for c, s in zip(channels.features, (2, 4, 8, 16), strict=True))
    return SegOutput(None, tuple(maps), ())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("mode", "distance"),
    [
        ("channel/kl/T1", channel_divergence),
        ("channel/kl/T4", DISTANCES["cwd"]),
        ("channel/mse/T1", channel_square),
        # the published `spatial` mode, one distribution a pixel, is response distillation; CSF offers it as `kl`
        ("spatial/kl/T1", pixel_divergence),
        ("spatial/kl/T4", DISTANCES["kl"]),
    ],
)
def test_published_distances(golden: Any, mode: str, distance: Any, layout: torch.memory_format) -> None:
    arrays = golden("loss_cwd")
    temperature = float(mode[-1])
    for dtype, loss_name, exact in ((torch.float32, "loss", 1e-5), (torch.float64, "loss_f64", 1e-13)):
        student, teacher = (torch.from_numpy(arrays[k]).to(dtype).contiguous(memory_format=layout) for k in "st")
        loss = distance(student.requires_grad_(), teacher, temperature)
        loss.backward()
        assert loss.dtype == dtype
        assert loss.item() == pytest.approx(float(arrays[f"{mode}/{loss_name}"]), rel=exact)
        expected = torch.from_numpy(arrays[f"{mode}/grad_s"]).to(dtype)
        torch.testing.assert_close(student.grad, expected, rtol=1e-4, atol=1e-8)


def test_mean_squared_difference_is_of_all_samples_and_channels(golden: Any) -> None:
    # the published mode without normalisation compares the first sample alone, sums channels and divides by samples
    arrays = golden("loss_cwd")
    student, teacher = (torch.from_numpy(arrays[k]) for k in "st")
    n, c = student.shape[:2]
    published = mean_squared_difference(student[:1], teacher[:1]) * c / n
    assert published.item() == pytest.approx(float(arrays["none/mse/T1/loss"]), rel=1e-5)
    assert mean_squared_difference(student, teacher).item() == pytest.approx(F.mse_loss(student, teacher).item())


@pytest.mark.parametrize("temperature", [1, 2, 4])
def test_response_distillation_is_the_published_spatial_divergence(golden: Any, temperature: int) -> None:
    arrays = golden("loss_kd_kl")
    student = torch.from_numpy(arrays["s"]).requires_grad_()
    path = ResponseDistillation(STUDENT, TEACHER, temperature=temperature)
    loss = path(*logits(student, torch.from_numpy(arrays["t"])))
    loss.backward()
    assert loss.item() == pytest.approx(float(arrays[f"T{temperature}/loss"]), rel=1e-5)
    assert loss.item() == pytest.approx(float(arrays[f"T{temperature}/pixelwise_hinton_stable"]), rel=1e-5)
    torch.testing.assert_close(student.grad, torch.from_numpy(arrays[f"T{temperature}/grad_s"]), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(("dim", "distance"), [(1, pixel_divergence), (2, channel_divergence)])
def test_divergences_at_logits_of_scale_50(dim: int, distance: Any) -> None:
    student, teacher = (draw(2, 19, 8, 12, seed=seed, scale=50).float() for seed in (0, 1))
    loss = distance(student.requires_grad_(), teacher, 1.0)
    loss.backward()
    published = student.flatten(dim if dim == 2 else 3).softmax(dim).log()
    assert published.isinf().any()  # what the published `softmax().log()` gives here
    exact = distance(student.detach().double(), teacher.double(), 1.0)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)
    assert student.grad is not None and student.grad.isfinite().all()


@pytest.mark.parametrize("distance", [pixel_divergence, channel_divergence, channel_square])
def test_gradients_of_distances(distance: Any) -> None:
    student, teacher = (draw(2, 3, 4, 5, seed=seed) for seed in (0, 1))
    assert torch.autograd.gradcheck(lambda s: distance(s, teacher, 2.0), student.requires_grad_())
    assert distance(student, student.detach(), 2.0).item() == 0
    untouched = student.detach().clone()
    assert torch.equal(untouched, student)


@pytest.mark.parametrize("path", [ResponseDistillation, ChannelWiseDistillation, CorrelationDistillation])
def test_a_class_that_only_one_network_has_takes_no_part(path: Any) -> None:
    narrow, wide = draw(2, 19, 8, 12, seed=0), draw(2, 20, 8, 12, seed=1)
    wide[:, 19] = 30.0
    shared = path(STUDENT, TEACHER)(*logits(narrow, wide[:, :19]))
    assert path(STUDENT, TEACHER)(*logits(narrow, wide)).item() == shared.item()
    swapped = path(TEACHER, STUDENT)(*logits(wide, narrow))
    assert swapped.item() == path(TEACHER, STUDENT)(*logits(wide[:, :19], narrow)).item()


@pytest.mark.parametrize("options", [{}, {"stages": [2, 4], "temperature": 1.0}, {"stages": [1], "distance": "mse"}])
def test_channel_wise_features(options: dict[str, Any]) -> None:
    path = ChannelWiseFeatureDistillation(STUDENT, TEACHER, **options).double()
    ours, theirs = features(STUDENT, 0), features(TEACHER, 100)
    expected = 0.0
    for projection, stage in zip(path.projections, options.get("stages", [4]), strict=True):
        s, t = projection(ours.features[stage - 1]), theirs.features[stage - 1]
        temperature = options.get("temperature", 4.0)
        p, q = ((x / temperature).flatten(2).softmax(2) for x in (s, t))
        terms = (p - q).square() if "distance" in options else q * (q.log() - p.log())
        expected += terms.sum(2).mean().item() * temperature**2
    assert path(batch_of(2), ours, theirs).item() == pytest.approx(expected, rel=1e-12)


def test_channel_wise_features_project_only_other_widths_and_ignore_what_is_added_to_a_channel() -> None:
    path = ChannelWiseFeatureDistillation(STUDENT, TEACHER, stages=[1, 4]).double()
    assert [tuple(p.shape) for p in path.parameters()] == [(40, 32, 1, 1)]
    ours, theirs = features(STUDENT, 0), features(TEACHER, 100)
    shifted = ours._replace(features=tuple(f + draw(1, f.shape[1], 1, 1, seed=9) for f in ours.features))
    loss = path(batch_of(2), ours, theirs).item()
    assert path(batch_of(2), shifted, theirs).item() == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize(("name", "temperature"), [*((name, None) for name in DISTANCES), ("cwd", 2.0), ("kl", 2.0)])
def test_distances_of_fused_features(name: str, temperature: float | None) -> None:
    weights = [1.0, 0.5, 0.0, 2.0]
    path = CrossSelectiveFusion(
        STUDENT, TEACHER, distance=name, temperature=temperature, stage_weights=weights
    ).double()
    path.eval()
    ours, theirs = features(STUDENT, 0), features(TEACHER, 100)
    arguments = () if temperature is None else (temperature,)
    expected = sum(
        weights[i] * DISTANCES[name](projected, theirs.features[i], *arguments).item()
        for projected, i in zip(path.project(ours.features), (0, 1, 3), strict=True)
    )
    assert path(batch_of(2), ours, theirs).item() == pytest.approx(expected, rel=1e-12)


def test_default_distance_is_hierarchical_context_without_a_parameter_of_its_own() -> None:
    states = [CrossSelectiveFusion(STUDENT, TEACHER, distance=name).state_dict() for name in DISTANCES]
    assert all(list(state) == list(states[0]) for state in states)
    assert CrossSelectiveFusion(STUDENT, TEACHER).distance is DISTANCES["hcl"]


@pytest.mark.slow  # loading the compiler takes ten seconds
@pytest.mark.parametrize("name", ["kd", "cwd", "cwd_features", "review", "dist", "csf"])
def test_one_graph_for_the_compiler(name: str) -> None:
    path = DISTILLERS[name](STUDENT, TEACHER, **({"distance": "kl"} if name == "csf" else {})).double().eval()
    ours, theirs = (
        features(channels, seed)._replace(logits=draw(2, channels.classes, 16, 24, seed=seed))
        for channels, seed in ((STUDENT, 0), (TEACHER, 100))
    )
    compiled = torch.compile(path, backend="eager", fullgraph=True)
    assert compiled(batch_of(2), ours, theirs).item() == path(batch_of(2), ours, theirs).item()


def correlations(student: Tensor, teacher: Tensor, temperature: float) -> tuple[float, float]:
    """Pearson's correlation over classes, mean over pixels; and over pixels, mean over classes. By numpy's own."""
    p, q = ((x / temperature).softmax(1).movedim(1, -1).flatten(0, 2).numpy() for x in (student, teacher))
    between = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
    within = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)])
    return float(between), float(within)


@pytest.mark.parametrize("group", [1, 2, 4, None])
@pytest.mark.parametrize(("beta", "gamma", "temperature"), [(1.0, 1.0, 1.0), (2.0, 0.5, 4.0), (0.0, 1.0, 1.0)])
def test_correlation_distillation(beta: float, gamma: float, temperature: float, group: int | None) -> None:
    student, teacher = (draw(4, 19, 5, 7, seed=seed, scale=3) for seed in (0, 1))
    path = CorrelationDistillation(STUDENT, TEACHER, beta=beta, gamma=gamma, temperature=temperature)
    if group is not None:
        path.set_norm_batch(group)
    groups = zip(student.split(group or 4), teacher.split(group or 4), strict=True)
    parts = [correlations(ours, theirs, temperature) for ours, theirs in groups]
    between, within = np.mean(parts, axis=0)
    expected = temperature**2 * (beta * (1 - between) + gamma * (1 - within))
    assert path(*logits(student, teacher)).item() == pytest.approx(expected, rel=1e-6)


def test_correlation_of_equals_and_of_what_does_not_vary() -> None:
    path = CorrelationDistillation(STUDENT, TEACHER)
    student = draw(2, 19, 5, 7, seed=0).float()
    assert path(*logits(student, student)).item() == pytest.approx(0.0, abs=1e-5)
    for scale in (0.0, 50.0):
        scaled = (student * scale).requires_grad_()
        loss = path(*logits(scaled, torch.zeros_like(student)))
        loss.backward()
        assert loss.item() == pytest.approx(2.0)  # a teacher without an opinion correlates with nothing
        assert scaled.grad is not None and scaled.grad.isfinite().all()
