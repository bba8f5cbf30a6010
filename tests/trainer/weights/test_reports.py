"""Weights that are not whole, not safe or not as the images are scaled: refused or reported, in words."""

from __future__ import annotations

import os

import pytest
import safetensors.torch
import torch

from trainer.config import ModelConfig, UserError
from trainer.models import MODELS, SegModel, build_model
from trainer.rng import initialising
from trainer.weights import load_weights, open_weights


def build(seed: int = 0) -> SegModel:
    with initialising(seed):
        return build_model(ModelConfig(name="segformer_tiny"), 19)


def test_less_than_the_backbone_needs_to_be_wanted(tmp_path):
    original = build()
    state = {name: tensor for name, tensor in original.state_dict().items() if not name.startswith(("block4", "norm4"))}
    torch.save(state, tmp_path / "w.pth")
    before, model = build(1).state_dict(), build(1)
    with pytest.raises(UserError, match=r"missing \(block4.*or load what fits with `partial: true`"):
        load_weights(model, tmp_path / "w.pth", what="backbone")
    coverage = load_weights(model, tmp_path / "w.pth", what="backbone", partial=True)
    assert {name.split(".")[0] for name in coverage.missing} == {"block4", "norm4"}
    for name, tensor in model.state_dict().items():
        came = name in state and not name.startswith("linear_")
        assert torch.equal(tensor, original.state_dict()[name] if came else before[name]), name
    torch.save({"a.weight": torch.ones(1)}, tmp_path / "none.pth")
    with pytest.raises(UserError, match="0 of"):
        load_weights(model, tmp_path / "none.pth", what="backbone", partial=True)


class Harmful:
    """What a stranger's file may hold."""

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, ("harm",))


@pytest.mark.parametrize("zipped", [True, False])
def test_objects_are_refused_and_not_run(zipped, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = {"state_dict": build().state_dict(), "hook": Harmful()}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"holds Python objects \(posix\.mkdir\).* safetensors$") as error:
        load_weights(build(), tmp_path / "w.pth", what="all")
    assert "weights_only" not in str(error.value)
    assert not (tmp_path / "harm").exists()


def test_files_of_torch_before_1_6_load_too(tmp_path):
    """They are no zip archives; many published files are of that age."""
    original = build()
    torch.save(original.state_dict(), tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    assert load_weights(build(1), tmp_path / "w.pth", what="all").complete


def test_a_damaged_safetensors_file_is_named(tmp_path):
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(dict(build().state_dict()), path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"model\.safetensors is a damaged safetensors file"):
        load_weights(build(), path, what="all")


@pytest.mark.parametrize(("prefix", "outputs"), [("", 20), ("module.", 19), ("student.", 19)])
def test_the_report_says_which_normalisation_the_weights_of_the_reference_want(prefix, outputs, tmp_path):
    model = MODELS["segformer_tiny"](outputs)
    torch.save({f"{prefix}{name}": tensor for name, tensor in model.state_dict().items()}, tmp_path / "w.pth")
    coverage = open_weights(tmp_path / "w.pth", model).cover(model, "all")
    assert coverage.record("unit") == {
        "format": "TransKD SegFormer",
        "loaded": len(model.state_dict()),
        "missing": 0,
        "unexpected": 0,
        "mismatched": 0,
        "normalize": "unit",
    }
    assert coverage.record("imagenet")["note"] == "weights of this kind were trained with normalize: unit"


@pytest.mark.parametrize("network", ["segformer_tiny", "lvt_mini", "pvtv2_mini"])
def test_a_plain_file_that_this_program_may_have_written_tells_no_normalisation(network, tmp_path):
    model = MODELS[network](19)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    weights = open_weights(tmp_path / "w.pth", model)
    assert weights.normalize is None
    assert "note" not in weights.cover(model, "all").record("imagenet")


def test_numbers_that_are_not_finite_are_named(tmp_path):
    state = build().state_dict()
    state["norm2.bias"][3] = torch.nan
    torch.save(state, tmp_path / "w.pth")
    model = build(1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match=r"w\.pth: norm2\.bias holds numbers that are not finite"):
        load_weights(model, tmp_path / "w.pth", what="all")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_backbone_is_no_whole_network_and_the_remedy_says_what_it_is_for(tmp_path):
    state = {name: tensor for name, tensor in build().state_dict().items() if not name.startswith("linear_")}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"it holds a backbone and no head, so it is for student\.init or"):
        load_weights(build(), tmp_path / "w.pth", what="all")


@pytest.mark.parametrize("what", ["all", "backbone"])
@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.uint8, torch.bool, torch.complex64])
def test_integers_are_no_weights(what, dtype, tmp_path):
    model = build()
    state = model.state_dict()
    for name in ("norm4.bias", "block1.0.attn.q.weight"):
        torch.save({**state, name: state[name].to(dtype)}, tmp_path / "w.pth")
        kind = str(dtype).removeprefix("torch.")
        with pytest.raises(UserError, match=f"w.pth: {name} holds {kind} and weights are floating-point numbers; take"):
            load_weights(build(1), tmp_path / "w.pth", what=what)
        with torch.device("meta"):
            planned = build()
        with pytest.raises(UserError, match=f"{name} holds {kind}"):
            open_weights(tmp_path / "w.pth", planned).cover(planned, what)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_converted(dtype, tmp_path):
    torch.save({name: tensor.to(dtype) for name, tensor in build().state_dict().items()}, tmp_path / "w.pth")
    model = build(1)
    assert load_weights(model, tmp_path / "w.pth", what="all").complete
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32, torch.int64}


def test_tensors_without_plain_numbers_are_refused(tmp_path):
    state = build().state_dict()
    bias = state["norm4.bias"]
    strange = {
        "sparse": bias.to_sparse(),
        "without values": bias.to("meta"),
        "quantised": torch.quantize_per_tensor(bias, 0.1, 0, torch.qint8),
    }
    for kind, tensor in strange.items():
        torch.save({**state, "norm4.bias": tensor}, tmp_path / "w.pth")
        with pytest.raises(UserError, match=f"norm4.bias is a tensor that is {kind}; take a checkpoint of ordinary"):
            load_weights(build(1), tmp_path / "w.pth", what="all")
    torch.save({**state, "norm4.bias": bias.double().fill_(1e300)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"norm4.bias holds numbers that are not finite"):
        load_weights(build(1), tmp_path / "w.pth", what="all")
