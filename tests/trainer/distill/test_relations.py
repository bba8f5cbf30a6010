"""Distillers of features and of relations between pixels, each against its definition written out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.config import IGNORE, UserError
from trainer.data.batch import Batch
from trainer.distill import ALTERNATIVES, DISTILLERS
from trainer.distill.at import AttentionTransfer
from trainer.distill.base import Distiller
from trainer.distill.cirkd import CrossImageRelations
from trainer.distill.fitnet import FitNetHints
from trainer.distill.ifvd import IntraClassVariation, nearest
from trainer.distill.skd import PairwiseSimilarity
from trainer.models.base import Channels, SegOutput
from trainer.training.build import check
from trainer.training.loop import fit

STRIDES = (4, 8, 16, 32)
STUDENT = Channels((4, 5, 6, 8), (4, 5, 6, 8), STRIDES, 3)
TEACHER = Channels((6, 7, 8, 9), (6, 7, 8, 9), STRIDES, 3)
SIZE = (64, 96)
PARAMETERLESS: list[Distiller] = [
    AttentionTransfer(STUDENT, TEACHER),
    PairwiseSimilarity(STUDENT, TEACHER, stage=3),
    IntraClassVariation(STUDENT, TEACHER, stage=3),
    CrossImageRelations(STUDENT, TEACHER, stage=3),
]
parameterless = pytest.mark.parametrize("path", PARAMETERLESS, ids=lambda path: type(path).__name__)


def output(channels: Channels, seed: int, n: int = 2, dtype: torch.dtype = torch.float64) -> SegOutput:
    """Random features of n samples, wanting gradients."""
    rng = torch.Generator().manual_seed(seed)
    maps = [tuple(math.ceil(side / stride) for side in SIZE) for stride in channels.strides]

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=dtype).requires_grad_()

    return SegOutput(None, tuple(draw(n, c, *hw) for c, hw in zip(channels.features, maps, strict=True)), ())


def batch_of(n: int = 2, label: Tensor | None = None) -> Batch:
    """Images and labels that draw on three classes and on what is ignored."""
    rng = torch.Generator().manual_seed(7)
    if label is None:
        label = torch.tensor([0, 1, 2, IGNORE])[torch.randint(4, (n, *SIZE), generator=rng)]
    return Batch(torch.rand((n, 3, *SIZE), generator=rng, dtype=torch.float64), label, torch.arange(n))


def with_features(out: SegOutput, stage: int, feature: Tensor) -> SegOutput:
    """The same output with another feature at a stage, counted from 1."""
    features = list(out.features)
    features[stage - 1] = feature
    return out._replace(features=tuple(features))


def turned(feature: Tensor) -> Tensor:
    """The feature (N, C, H, W) twice as long and turned by one rotation of its channels: every cosine is as before."""
    rng = torch.Generator().manual_seed(3)
    rotation, _ = torch.linalg.qr(torch.randn((feature.shape[1],) * 2, generator=rng, dtype=feature.dtype))
    return 2 * torch.einsum("dc,nchw->ndhw", rotation, feature.detach())


def test_fitnet_regresses_and_compares() -> None:
    path = FitNetHints(STUDENT, TEACHER, stages=[4, 2]).double()
    student, teacher = output(STUDENT, 1), output(TEACHER, 2)
    expected = 0.0
    for regressor, i in zip(path.regressors, (1, 3), strict=True):
        weight, bias = regressor.weight[:, :, 0, 0], regressor.bias
        regressed = torch.einsum("dc,nchw->ndhw", weight, student.features[i]) + bias[:, None, None]
        expected += (regressed - teacher.features[i]).square().mean().item()
    assert path(batch_of(), student, teacher).item() == pytest.approx(expected, rel=1e-12)
    assert sum(p.numel() for p in path.parameters()) == (5 + 1) * 7 + (8 + 1) * 9


@pytest.mark.parametrize("power", [1, 2, 3.5])
def test_attention_transfer_compares_normalised_maps(power: float) -> None:
    student, teacher = output(STUDENT, 1), output(TEACHER, 2)
    expected = 0.0
    for i in (0, 2):
        maps = []
        for feature in (student.features[i], teacher.features[i]):
            attention = np.sum(np.abs(feature.detach().numpy()) ** power, axis=1).reshape(2, -1)
            maps.append(attention / np.linalg.norm(attention, axis=1, keepdims=True))
        expected += np.mean((maps[0] - maps[1]) ** 2)
    path = AttentionTransfer(STUDENT, TEACHER, stages=[1, 3], power=power)
    assert path(batch_of(), student, teacher).item() == pytest.approx(expected, rel=1e-12)


def test_attention_of_nothing_has_a_gradient() -> None:
    student = with_features(output(STUDENT, 1), 4, torch.zeros(2, 8, 2, 3, dtype=torch.float64, requires_grad=True))
    loss = AttentionTransfer(STUDENT, TEACHER, stages=[4])(batch_of(), student, output(TEACHER, 2))
    loss.backward()
    assert student.features[3].grad is not None
    assert student.features[3].grad.isfinite().all()


@pytest.mark.parametrize(
    ("size", "patch"),
    [
        ({}, (2, 3)),
        ({"scale": 0.5}, (2, 3)),
        ({"scale": 0.7}, (2, 4)),
        ({"scale": 0.01}, (1, 1)),
        ({"patch": 2}, (2, 2)),
        ({"patch": 5}, (5, 5)),
    ],
)
def test_pairwise_similarity_of_max_pooled_patches(size: dict[str, Any], patch: tuple[int, int]) -> None:
    student, teacher = output(STUDENT, 1), output(TEACHER, 2)  # 4 x 6 pixels at stage 3
    similarities = []
    for feature in (student.features[2], teacher.features[2]):
        rows, columns = (math.ceil(side / step) for side, step in zip((4, 6), patch, strict=True))
        cells = [
            feature[:, :, r * patch[0] : (r + 1) * patch[0], c * patch[1] : (c + 1) * patch[1]].amax((2, 3))
            for r in range(rows)
            for c in range(columns)
        ]
        similarities.append([F.cosine_similarity(a, b) for a in cells for b in cells])
    pairs = zip(*similarities, strict=True)
    expected = torch.stack([(ours - theirs).square() for ours, theirs in pairs]).mean().item()
    path = PairwiseSimilarity(STUDENT, TEACHER, stage=3, **size)
    assert path(batch_of(), student, teacher).item() == pytest.approx(expected, rel=1e-9)


def test_intra_class_variation_pixel_by_pixel() -> None:
    student, teacher, batch = output(STUDENT, 1), output(TEACHER, 2), batch_of()
    label = nearest(batch.label, 4, 6)
    assert set(label.unique().tolist()) == {0, 1, 2, IGNORE}
    terms = []
    for n, r, c in np.ndindex(2, 4, 6):
        if label[n, r, c] == IGNORE:
            terms.append(0.0)
            continue
        cosines = []
        for out in (student, teacher):
            feature = out.features[2][n]
            prototype = feature[:, label[n] == label[n, r, c]].mean(1)
            cosines.append(F.cosine_similarity(feature[:, r, c], prototype, dim=0).item())
        terms.append((cosines[0] - cosines[1]) ** 2)
    path = IntraClassVariation(STUDENT, TEACHER, stage=3)
    assert path(batch, student, teacher).item() == pytest.approx(np.mean(terms), rel=1e-9)


@pytest.mark.parametrize("value", [IGNORE, 3], ids=["ignored", "a class the student lacks"])
def test_intra_class_variation_without_a_class(value: int) -> None:
    student, batch = output(STUDENT, 1), batch_of(label=torch.full((2, *SIZE), value))
    loss = IntraClassVariation(STUDENT, TEACHER)(batch, student, output(TEACHER, 2))
    loss.backward()
    assert loss.item() == 0
    assert student.features[3].grad is not None
    assert torch.equal(student.features[3].grad, torch.zeros_like(student.features[3]))


def test_intra_class_variation_teaches_only_pixels_with_a_class() -> None:
    student = output(STUDENT, 1)
    label = torch.full((2, *SIZE), IGNORE)
    label[0, :32] = 1  # the upper half of the first image: rows 0 and 1 of 4 at stage 3
    IntraClassVariation(STUDENT, TEACHER, stage=3)(batch_of(label=label), student, output(TEACHER, 2)).backward()
    assert student.features[2].grad is not None
    taught = student.features[2].grad.abs().sum(1) > 0
    expected = torch.zeros_like(taught)
    expected[0, :2] = True
    assert torch.equal(taught, expected)


def test_quarter_labels_teach_as_full_ones() -> None:
    student, teacher, full = output(STUDENT, 1), output(TEACHER, 2), batch_of()
    quarter = full._replace(label=full.label[:, ::4, ::4])
    path = IntraClassVariation(STUDENT, TEACHER, stage=3)
    assert path(full, student, teacher).item() == path(quarter, student, teacher).item()


@pytest.mark.parametrize("size", [(64, 96), (52, 68), (13, 17), (16, 24)])
def test_nearest_takes_the_pixels_that_torch_takes(size: tuple[int, int]) -> None:
    label = torch.arange(2 * math.prod(size)).view(2, *size)
    expected = F.interpolate(label[:, None].double(), size=(4, 6), mode="nearest")[:, 0]
    assert torch.equal(nearest(label, 4, 6), expected.long())


@pytest.mark.parametrize("pool", [1, 4])
@pytest.mark.parametrize("group", [1, 2, 4])
def test_cross_image_relations_pair_by_pair(group: int, pool: int) -> None:
    student, teacher = output(STUDENT, 1, n=4), output(TEACHER, 2, n=4)
    path = CrossImageRelations(STUDENT, TEACHER, stage=3, temperature=0.2, pool=pool)
    path.set_norm_batch(group)
    losses = []
    for first in range(0, 4, group):
        for i in range(first, first + group):
            for j in range(first, first + group):
                logs = []
                for out in (student, teacher):
                    a, b = (F.avg_pool2d(out.features[2][k], pool, ceil_mode=True).flatten(1) for k in (i, j))
                    cosines = F.cosine_similarity(a[:, :, None], b[:, None, :], dim=0)  # (L, L)
                    logs.append((cosines / 0.2).log_softmax(1))
                losses.append(F.kl_div(logs[0], logs[1], reduction="batchmean", log_target=True).item())
    assert path(batch_of(4), student, teacher).item() == pytest.approx(np.mean(losses), rel=1e-9)


def test_cross_image_relations_need_whole_groups() -> None:
    path = CrossImageRelations(STUDENT, TEACHER)
    path.set_norm_batch(4)
    with pytest.raises(UserError, match="the batch must be a multiple of the BatchNorm group of 4 samples but has 2"):
        path(batch_of(), output(STUDENT, 1), output(TEACHER, 2))


def test_a_cold_softmax_stays_finite() -> None:
    student = output(STUDENT, 1, dtype=torch.float32)
    path = CrossImageRelations(STUDENT, TEACHER, stage=3, temperature=1e-3)
    loss = path(batch_of(), student, output(TEACHER, 2, dtype=torch.float32))
    loss.backward()
    assert loss.isfinite()
    assert student.features[2].grad is not None
    assert student.features[2].grad.isfinite().all()


@parameterless
def test_what_is_alike_costs_nothing(path: Distiller) -> None:
    student, teacher = output(STUDENT, 1), output(TEACHER, 2)
    same = SegOutput(None, tuple(2 * f.detach() for f in student.features), ())
    assert path(batch_of(), student, same).item() == pytest.approx(0, abs=1e-20)
    assert path(batch_of(), student, teacher).item() > 1e-6
    assert not list(path.parameters())


@pytest.mark.parametrize("path", [PARAMETERLESS[2], PARAMETERLESS[3], PairwiseSimilarity(STUDENT, TEACHER, scale=0.01)])
def test_relations_survive_a_rotation_of_the_channels(path: Distiller) -> None:
    student = output(STUDENT, 1)
    assert path(batch_of(), student, SegOutput(None, tuple(map(turned, student.features)), ())).item() < 1e-20


@parameterless
def test_gradients(path: Distiller) -> None:
    student, teacher = output(STUDENT, 1), output(TEACHER, 2)
    assert torch.autograd.gradcheck(
        lambda feature: path(batch_of(), with_features(student, 3, feature), teacher),
        (student.features[2],),
        fast_mode=True,
    )


@parameterless
def test_autocast_rounds_no_relation(path: Distiller) -> None:
    student, teacher = (output(c, seed, dtype=torch.float32) for c, seed in ((STUDENT, 1), (TEACHER, 2)))
    expected = path(batch_of(), student, teacher)
    with torch.autocast("cpu", torch.bfloat16):
        assert path(batch_of(), student, teacher).item() == expected.item()


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", [FitNetHints(STUDENT, TEACHER).double(), *PARAMETERLESS], ids=lambda p: type(p).__name__
)
def test_one_graph_for_the_compiler(path: Distiller) -> None:
    student, teacher, batch = output(STUDENT, 1), output(TEACHER, 2), batch_of()
    compiled = torch.compile(path, backend="eager", fullgraph=True)
    assert compiled(batch, student, teacher).item() == path(batch, student, teacher).item()


@pytest.mark.slow
def test_all_paths_train_together(tiny: Callable[..., Any], place: Callable[..., Any]) -> None:
    together = {name: {"weight": 0.1} for name in DISTILLERS if name not in ALTERNATIVES[1:]}
    config = tiny(together, {"optim.epochs": 1, "optim.precision": "bf16", "data.train_labels": "quarter"})
    check(config, place().cache_dir)
    fit(config, place(), report=lambda metrics, path: None)
    epoch = json.loads((place().out_dir / "epochs.jsonl").read_text())
    assert all(epoch[f"loss/{name}"] > 0 for name in together)


def test_one_cell_relates_to_nothing() -> None:
    path = CrossImageRelations(STUDENT, TEACHER, stage=4, pool=99)
    with pytest.raises(UserError, match="pool 99 leaves one cell of the stage's map"):
        path(batch_of(), output(STUDENT, 1), output(TEACHER, 2))


def test_one_patch_makes_no_pair() -> None:
    path = PairwiseSimilarity(STUDENT, TEACHER, stage=4, patch=3)
    with pytest.raises(UserError, match="one patch of 3x3 fills the 2x3 map"):
        path(batch_of(), output(STUDENT, 1), output(TEACHER, 2))
