"""The options of the PEA family: which distance, which stage is mixed, which stages are assisted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainer.data.batch import Batch
from trainer.distill.pea import DISTANCES, PatchEmbeddingAlignment, align
from trainer.distill.pea_ea import EmbeddingAssistant
from trainer.distill.pea_gl import GlobalLocalAlignment
from trainer.models.base import Channels, SegOutput

STRIDES = (4, 8, 16, 32)
STUDENT = Channels((4, 5, 6, 8), (4, 5, 6, 8), STRIDES, 3)
TEACHER = Channels((6, 7, 8, 9), (6, 7, 8, 9), STRIDES, 3)


def output(channels: Channels, seed: int) -> SegOutput:
    """Random features and embeddings of two samples of 64x96."""
    rng = torch.Generator().manual_seed(seed)
    maps = [(64 // stride, 96 // stride) for stride in channels.strides]

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=torch.float64)

    features = tuple(draw(2, c, *hw) for c, hw in zip(channels.features, maps, strict=True))
    return SegOutput(None, features, tuple(draw(2, h * w, c) for c, (h, w) in zip(channels.embeds, maps, strict=True)))


def batch_of() -> Batch:
    image = torch.rand((2, 3, 64, 96), generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return Batch(image, torch.zeros((2, 64, 96), dtype=torch.int64), torch.arange(2))


# the reference names the axis it does not sum over; it divides by samples and channels, or by nothing
@pytest.mark.parametrize(
    ("ours", "theirs", "temperature"),
    [
        ("cwd", "channel/kl", 1),
        ("cwd", "channel/kl", 4),
        ("channel_mse", "channel/mse", 1),
        ("kl", "spatial/kl", 1),
        ("kl", "spatial/kl", 4),
        ("token_mse", "spatial/mse", 1),
    ],
)
def test_distances_of_embeddings(golden: Any, ours: str, theirs: str, temperature: int) -> None:
    arrays = golden("loss_cwd")
    student, teacher = torch.from_numpy(arrays["es"]).requires_grad_(), torch.from_numpy(arrays["et"])
    # ours is a mean over tokens too, so that neither the batch nor the image's size is a weight
    published = 1 if theirs.startswith("channel") else student.shape[0] * student.shape[1]
    loss = align([student], [teacher], [1.0], lambda s, t: DISTANCES[ours](s, t, temperature))
    (loss * published).backward()
    assert loss.item() * published == pytest.approx(float(arrays[f"embed/{theirs}/T{temperature}/loss"]), rel=1e-5)
    expected = torch.from_numpy(arrays[f"embed/{theirs}/T{temperature}/grad_s"])
    torch.testing.assert_close(student.grad, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("distance", ["cwd", "kl", "channel_mse", "token_mse"])
def test_alignment_passes_distance_and_temperature_on(distance: str) -> None:
    student, teacher = output(STUDENT, 1), output(TEACHER, 2)
    for build in (PatchEmbeddingAlignment, GlobalLocalAlignment, EmbeddingAssistant):
        path = build(STUDENT, TEACHER, stage_weights=(0, 0.5, 0, 2), distance=distance, temperature=3.0).double()
        embeds = path.embed(batch_of(), student)
        expected = sum(
            weight * DISTANCES[distance](ours, teacher.embeds[i], 3.0).item()
            for weight, ours, i in zip((0.5, 2), embeds, (1, 3), strict=True)
        )
        assert path(batch_of(), student, teacher).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("stage", [1, 2, 3, 4])
def test_the_mixer_works_on_the_stage_it_is_given(stage: int, residual: bool) -> None:
    path = GlobalLocalAlignment(STUDENT, TEACHER, stage=stage, heads=1, residual=residual).double()
    student = output(STUDENT, 1)
    embeds = path.embed(batch_of(), student)
    for i, (projection, embed, actual) in enumerate(zip(path.projections, student.embeds, embeds, strict=True)):
        before = path.mixer(embed) + (embed if residual else 0) if i == stage - 1 else embed
        torch.testing.assert_close(actual, projection(before))


def test_the_assistant_helps_the_stages_it_is_given() -> None:
    everywhere = EmbeddingAssistant(STUDENT, TEACHER).double()
    path = EmbeddingAssistant(STUDENT, TEACHER, assisted=[4, 2]).double()
    path.projections.load_state_dict(everywhere.projections.state_dict())
    path.assistants.load_state_dict(nn.ModuleList([everywhere.assistants[1], everywhere.assistants[3]]).state_dict())
    assert path.projection_scales.tolist() == pytest.approx([0.2, 0.4])
    assert path.assistant_scales.tolist() == pytest.approx([0.6, 0.8])
    student = output(STUDENT, 1)
    embeds, assisted = path.embed(batch_of(), student), everywhere.embed(batch_of(), student)
    for i in (0, 2):
        torch.testing.assert_close(embeds[i], path.projections[i](student.embeds[i]))
    for i in (1, 3):
        torch.testing.assert_close(embeds[i], assisted[i])
