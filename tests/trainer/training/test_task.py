"""The losses of one module: cross-entropy as the published code computes it, and sums that no split can change."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.config import IGNORE, ModelConfig, Term
from trainer.data.batch import Batch
from trainer.distill import build_distillers
from trainer.losses import at_label_size
from trainer.losses.cross_entropy import CrossEntropy
from trainer.models import build_model
from trainer.models.base import Channels
from trainer.training.task import Distilled, count_pixels, pixel_weight

TEACHER = Channels((16, 32, 80, 128), (16, 32, 80, 128), (4, 8, 16, 32), 3)


def cross_entropy_sum(logits: Tensor, label: Tensor, weights: Tensor | None = None) -> Tensor:
    return CrossEntropy()(at_label_size(logits, label), label, weights)


def mean(logits: Tensor, label: Tensor, weights: Tensor | None = None) -> Tensor:
    """What the loop makes of the sum."""
    classes = logits.shape[1]
    return cross_entropy_sum(logits, label, weights) / pixel_weight(count_pixels(label, classes), weights)


def test_published_cross_entropy_and_its_gradient(golden: Any) -> None:
    arrays = {name: torch.from_numpy(array) for name, array in golden("loss_ce").items()}
    logits = arrays["logits"].requires_grad_()
    loss = mean(logits, arrays["labels"], arrays["class_weights"])
    loss.backward()
    assert loss.item() == pytest.approx(arrays["loss_f64"].item(), rel=1e-6)
    torch.testing.assert_close(logits.grad, arrays["grad"], rtol=1e-4, atol=1e-9)


def test_without_a_valid_pixel_the_loss_is_0_with_a_graph_where_the_published_code_gives_nan(golden: Any) -> None:
    arrays = golden("loss_ce")
    assert arrays["loss_all_ignored"] != arrays["loss_all_ignored"]
    logits = torch.from_numpy(arrays["logits"]).requires_grad_()
    loss = mean(logits, torch.full((2, 8, 16), IGNORE))
    loss.backward()
    assert loss.item() == 0
    assert torch.count_nonzero(logits.grad) == 0


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 0.5])])
def test_ignored_pixels_count_nowhere(weights: Tensor | None) -> None:
    logits = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    label = torch.arange(48).view(2, 4, 6) % 3
    label[0, :, :2] = IGNORE
    expected = F.cross_entropy(logits, label, weights, ignore_index=IGNORE)
    assert mean(logits, label, weights).item() == pytest.approx(expected.item(), rel=1e-6)
    other = logits.clone()
    other[0, :, :, :2] = 1e3
    assert mean(other, label, weights).item() == mean(logits, label, weights).item()


def test_logits_are_upsampled_to_full_labels_and_not_to_quarter_ones() -> None:
    logits = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    full = torch.arange(2 * 16 * 24).view(2, 16, 24) % 3
    quarter = full[:, ::4, ::4].contiguous()
    upsampled = F.interpolate(logits, size=(16, 24), mode="bilinear", align_corners=False)
    assert mean(logits, full).item() == pytest.approx(F.cross_entropy(upsampled, full).item(), rel=1e-6)
    assert mean(logits, quarter).item() == pytest.approx(F.cross_entropy(logits, quarter).item(), rel=1e-6)


def test_bfloat16_logits_are_judged_in_float32() -> None:
    logits = torch.randn(1, 3, 4, 6, generator=torch.Generator().manual_seed(0)).bfloat16()
    loss = cross_entropy_sum(logits, torch.zeros(1, 4, 6, dtype=torch.int64))
    assert loss.dtype == torch.float32
    assert loss.item() == cross_entropy_sum(logits.float(), torch.zeros(1, 4, 6, dtype=torch.int64)).item()


def test_pixels_are_counted_exactly_and_by_class() -> None:
    label = torch.tensor([[0, 2, 2, IGNORE], [1, 2, IGNORE, IGNORE]])
    assert count_pixels(label, 3).tolist() == [1, 1, 3]
    assert pixel_weight(torch.tensor([1, 1, 3]), None).item() == 5
    assert pixel_weight(torch.tensor([1, 1, 3]), torch.tensor([1.0, 0.0, 0.5])).item() == 2.5
    assert pixel_weight(torch.tensor([0, 0, 0]), None).item() == 1
    assert pixel_weight(torch.tensor([2**40, 1, 0]), None).dtype == torch.float32


def build(*names: str) -> Distilled:
    student = build_model(ModelConfig(name="segformer_tiny", drop_path=0, dropout=0), 3)
    terms = {name: Term() for name in names}
    return Distilled(student, build_distillers(terms, student.channels, TEACHER, 0), 3, torch.tensor([1.0, 2.0, 3.0]))


def test_losses_carry_the_names_of_the_paths_and_the_needs_are_theirs() -> None:
    distilled = build("csf", "pea")
    assert distilled.teacher_needs == {"features", "embeds"}
    assert build("pea").teacher_needs == {"embeds"}
    assert build().teacher_needs == frozenset()
    batch = Batch(torch.rand(2, 3, 64, 64), torch.zeros(2, 64, 64, dtype=torch.int64), torch.arange(2))
    assert list(build()(batch, None)) == ["ce"]
    teacher = build_model(ModelConfig(name="segformer_mini"), 3).eval()
    assert list(distilled(batch, teacher(batch.image))) == ["ce", "csf", "pea"]


def test_class_weights_belong_to_no_checkpoint() -> None:
    distilled = build("pea")
    assert torch.equal(distilled.class_weights, torch.tensor([1.0, 2.0, 3.0]))
    assert {name.split(".")[0] for name in distilled.state_dict()} == {"student", "paths"}
