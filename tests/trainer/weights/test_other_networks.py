"""Weights of another network than the config's: another number of outputs may be taken over, all else is refused."""

from __future__ import annotations

import pytest
import torch

from tests.trainer.weights.public_weights import before_each, logits_are_golden, mmsegmentation
from trainer.config import ModelConfig, UserError
from trainer.training.networks import load_network
from trainer.weights import load_weights


def test_two_networks_in_a_file_are_refused(source, tmp_path):
    state = source("segformer_tiny").state_dict()
    torch.save({**before_each("first.")(state), **before_each("second.")(state)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"holds two networks, 'first\.' and 'second\.'; save the one"):
        load_weights(source("segformer_tiny"), tmp_path / "w.pth", what="all")


@pytest.mark.parametrize("what", ["all", "backbone"])
def test_another_familys_weights_are_called_by_their_name(what, source, tmp_path):
    torch.save(source("lvt_mini").state_dict(), tmp_path / "lvt.pth")
    with pytest.raises(UserError, match=r"holds weights of a LVT \(TransKD LVT\), but the network is a SegFormer"):
        load_weights(source("segformer_tiny"), tmp_path / "lvt.pth", what=what)


def test_mmsegmentations_own_head_is_another_function(source, tmp_path):
    torch.save(mmsegmentation(source("segformer_tiny").state_dict()), tmp_path / "w.pth")
    with pytest.raises(
        UserError, match=r"head normalises each projection.*only the backbone of such files can be used$"
    ) as e:
        load_weights(source("segformer_tiny"), tmp_path / "w.pth", what="all")
    assert "decode_head.convs.0.conv.weight" in str(e.value)


@pytest.mark.slow
def test_twenty_outputs_follow_the_file(source, golden, fill, tmp_path):
    """The reference's void class: a 20th output is kept for data of 19 classes, and 19 stay 19."""
    twenty = source("segformer_b0").state_dict()
    torch.save(twenty, tmp_path / "20.pth")
    model = load_network(ModelConfig(name="segformer_b0"), tmp_path / "20.pth", 19)
    assert model.channels.classes == 20
    logits_are_golden(model, fill, golden("segformer_b0"))
    torch.save({n: t[:19] if n.startswith("linear_pred") else t for n, t in twenty.items()}, tmp_path / "19.pth")
    assert load_network(ModelConfig(name="segformer_b0"), tmp_path / "19.pth", 19).channels.classes == 19
    with pytest.raises(UserError, match=r"20\.pth has 20 outputs, but the data has 11 classes"):
        load_network(ModelConfig(name="segformer_b0"), tmp_path / "20.pth", 11)
