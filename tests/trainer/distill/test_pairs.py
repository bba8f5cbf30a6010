"""Teachers and students of different families, under every entry of DISTILLERS: works, or is refused with a reason."""

from __future__ import annotations

import functools

import pytest
import torch

from trainer.config import Term, UserError
from trainer.data.batch import Batch
from trainer.distill import DISTILLERS, build_distillers
from trainer.models import MODELS
from trainer.models.base import Channels, SegOutput
from trainer.models.norm import set_norm_batch

CLASSES, N, SIZE = 7, 2, (64, 96)
FAMILIES = ("segformer_tiny", "pvtv2_mini", "lvt_mini")
STRANGERS = {
    "coarser": Channels((8, 16, 24, 32), (8, 16, 24, 32), (8, 16, 32, 64), CLASSES),
    "fewer": Channels((8, 16, 24), (8, 16, 24), (4, 8, 16), CLASSES),
}
"""Networks whose stages are not those of our families."""


@functools.cache
def network(name: str) -> tuple[Channels, SegOutput]:
    """The geometry of a network and what it returns for the batch, on the meta device."""
    if name in STRANGERS:
        channels = STRANGERS[name]
        maps = [(-(-SIZE[0] // s), -(-SIZE[1] // s)) for s in channels.strides]
        features = tuple(torch.empty(N, c, *hw, device="meta") for c, hw in zip(channels.features, maps, strict=True))
        embeds = tuple(torch.empty(N, h * w, c, device="meta") for c, (h, w) in zip(channels.embeds, maps, strict=True))
        return channels, SegOutput(torch.empty(N, CLASSES, SIZE[0] // 4, SIZE[1] // 4, device="meta"), features, embeds)
    with torch.device("meta"):
        model = MODELS[name](CLASSES)
        return model.channels, model(torch.empty(N, 3, *SIZE), torch.zeros(N, dtype=torch.int64))


def loss_of(name: str, student: str, teacher: str) -> torch.Tensor:
    """One forward pass of a distiller with its defaults. Raises UserError when it cannot be built."""
    (ours, out), (theirs, target) = network(student), network(teacher)
    with torch.device("meta"):
        path = build_distillers({name: Term()}, ours, theirs, 0)[name]
        set_norm_batch(path, N)
        label = torch.zeros(N, *SIZE, dtype=torch.int64)
        return path(Batch(torch.empty(N, 3, *SIZE), label, torch.zeros(N, dtype=torch.int64)), out, target)


@pytest.mark.parametrize("student", FAMILIES)
@pytest.mark.parametrize("teacher", FAMILIES)
@pytest.mark.parametrize("name", DISTILLERS)
def test_families_teach_each_other(name: str, teacher: str, student: str) -> None:
    assert loss_of(name, student, teacher).shape == ()


@pytest.mark.parametrize("student", FAMILIES)
@pytest.mark.parametrize("teacher", STRANGERS)
@pytest.mark.parametrize("name", DISTILLERS)
def test_other_stages_are_no_matter_or_the_reason(name: str, teacher: str, student: str) -> None:
    """What compares maps of equal stages says so before anything runs; what does not need them works."""
    reason = None
    try:
        assert loss_of(name, student, teacher).shape == ()
    except UserError as error:
        reason = str(error)
    if DISTILLERS[name].needs == {"logits"}:
        assert reason is None
    elif reason is not None:
        assert reason.startswith(f"distill.{name}: ") and "stride" in reason and "\n" not in reason


@pytest.mark.parametrize("name", ["csf", "pea", "pea_gl", "pea_ea"])
def test_paths_of_the_paper_refuse_other_strides(name: str) -> None:
    with pytest.raises(UserError, match="equal strides but got"):
        loss_of(name, "segformer_tiny", "coarser")
