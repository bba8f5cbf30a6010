"""Networks of other inputs than RGB: the first patch embedding is adapted as timm does it, the rest is as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trainer.config import ModelConfig
from trainer.files import checkpoint
from trainer.models import MODELS, build_model
from trainer.models.base import LOGITS
from trainer.models.inputs import adapted, with_channels
from trainer.rng import initialising
from trainer.weights import load_weights


def network(name: str, channels: int, seed: int = 0) -> Any:
    with initialising(seed, "student"):
        return build_model(ModelConfig(name=name), 3, channels)


def test_a_kernel_is_summed_for_grey_and_repeated_for_more() -> None:
    weight = torch.randn(5, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(adapted(weight, 1), weight.sum(1, keepdim=True))
    four = adapted(weight, 4)
    torch.testing.assert_close(four, weight[:, [0, 1, 2, 0]] * 3 / 4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["segformer_tiny", "pvtv2_b0", "lvt"])
@pytest.mark.parametrize("channels", [1, 4, 9])
def test_only_the_first_kernel_is_another(name: str, channels: int) -> None:
    rgb, other = network(name, 3), network(name, channels)
    assert (rgb.channels.inputs, other.channels.inputs) == (3, channels)
    theirs = other.state_dict()
    differ = [entry for entry, tensor in rgb.state_dict().items() if not torch.equal(tensor, theirs[entry])]
    assert len(differ) == 1 and theirs[differ[0]].shape[1] == channels
    torch.testing.assert_close(theirs[differ[0]], adapted(rgb.state_dict()[differ[0]], channels))
    logits = other.eval()(torch.zeros(1, channels, 32, 64), None, LOGITS).logits
    assert logits.shape == (1, 3, 8, 16)


@pytest.mark.slow
def test_rgb_weights_are_adapted_and_own_weights_are_not(tmp_path: Path) -> None:
    rgb = network("segformer_tiny", 3)
    checkpoint.save(tmp_path / "rgb.pt", {"model": rgb.state_dict()})
    student = network("segformer_tiny", 5, seed=1)
    coverage = load_weights(student, tmp_path / "rgb.pt", what="backbone")
    assert coverage.complete
    first = "patch_embed1.proj.weight"
    torch.testing.assert_close(student.state_dict()[first], adapted(rgb.state_dict()[first], 5))
    checkpoint.save(tmp_path / "five.pt", {"model": student.state_dict()})
    again = network("segformer_tiny", 5, seed=2)
    load_weights(again, tmp_path / "five.pt", what="all")
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in student.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_network_reads_other_channels(name: str) -> None:
    with torch.device("meta"):
        model = with_channels(MODELS[name](3), 2)
        kernels = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 2]
        assert kernels[0].weight.shape[1] == 2
        logits = model.eval()(torch.empty(1, 2, 32, 32), None, LOGITS).logits
    assert logits is not None and logits.shape == (1, 3, 8, 8)
