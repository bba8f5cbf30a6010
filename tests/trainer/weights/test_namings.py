"""Every naming of public weights: golden weights under the names of others give the golden output of the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from tests.trainer.weights.public_weights import KINDS, fresh, logits_are_golden, rest
from trainer.weights import load_weights


def save(content: Any, folder: Path) -> list[Path]:
    """The file, and where the format can hold it, a safetensors file: neither name tells which is which."""
    torch.save(content, folder / "one.bin")
    if not all(isinstance(value, Tensor) for value in content.values()):
        return [folder / "one.bin"]
    safetensors.torch.save_file({name: tensor.clone() for name, tensor in content.items()}, folder / "other.bin")
    return [folder / "one.bin", folder / "other.bin"]


@pytest.mark.slow
@pytest.mark.parametrize(("network", "kind"), KINDS)
def test_weights_under_any_name(network, kind, source, golden, fill, tmp_path):
    write, what, title, normalize = KINDS[network, kind]
    original = source(network)
    state = original.state_dict()
    for path in save(write(state), tmp_path):
        model = fresh(network, original, what)
        coverage = load_weights(model, path, what=what)
        assert coverage.complete
        assert (coverage.format, coverage.normalize) == (title, normalize)
        heads = rest(state, "linear_", "neck.", "head.") if what == "backbone" else {}
        assert set(coverage.loaded) == set(state) - set(heads)
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    logits_are_golden(model, fill, golden(network))


def test_timms_features_only(source, tmp_path):
    import timm

    theirs = timm.create_model("pvt_v2_b0", features_only=True)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    model = fresh("pvtv2_b0", source("pvtv2_b0"), "backbone")
    coverage = load_weights(model, tmp_path / "w.pth", what="backbone")
    assert (coverage.format, coverage.normalize) == ("timm PVTv2 with features_only", "imagenet")
    ours = model.state_dict()
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(tensor, ours[f"backbone.{name.replace('stages_', 'stages.')}"])


@pytest.mark.parametrize("what", ["all", "backbone"])
def test_batchnorms_counters_may_lack(what, source, tmp_path):
    original = source("segformer_tiny")
    state = {n: t for n, t in original.state_dict().items() if not n.endswith("num_batches_tracked")}
    for name, content in (("plain", state), ("ours", {"model": state})):
        torch.save(content, tmp_path / f"{name}.pth")
        model = fresh("segformer_tiny", original, what)
        coverage = load_weights(model, tmp_path / f"{name}.pth", what=what)
        assert coverage.complete
        assert (coverage.format == "this program") == (name == "ours")
        assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in state.items())
