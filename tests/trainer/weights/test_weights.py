"""Weights fit whole or are refused, in every wrapping they come in."""

from __future__ import annotations

import pytest
import torch

from trainer import rng
from trainer.config import UserError
from trainer.models import MODELS
from trainer.weights import load_weights


def build(seed=0, classes=7, name="segformer_tiny"):
    with rng.initialising(seed):
        return MODELS[name](classes)


def differing(one, other):
    a, b = one.state_dict(), other.state_dict()
    return {key for key in a if a[key].shape != b[key].shape or not torch.equal(a[key], b[key])}


WRAPPINGS = {
    "plain": lambda state: state,
    "model": lambda state: {"model": state, "epoch": 3},
    "state_dict": lambda state: {"state_dict": state, "arch": "segformer"},
    "module": lambda state: {f"module.{key}": value for key, value in state.items()},
    "student": lambda state: {
        **{f"student.{key}": value for key, value in state.items()},
        "paths.pea.0.weight": torch.ones(1),
        "patch_embed1.proj.weight": torch.ones(1),  # TransKD-EA has its own, of the same name
    },
    "model, module and student": lambda state: {"model": {f"module.student.{k}": v for k, v in state.items()}},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("what", ["all", "backbone"])
def test_every_wrapping_loads(wrapping, what, tmp_path):
    source, target, before = build(1), build(0), build(0)
    torch.save(WRAPPINGS[wrapping](source.state_dict()), tmp_path / "w.pt")
    coverage = load_weights(target, tmp_path / "w.pt", what=what)
    assert coverage.complete
    heads = {key for key in source.state_dict() if key.startswith("linear_")}
    kept = set() if what == "all" else heads
    assert set(coverage.loaded) == set(source.state_dict()) - kept
    assert not differing(target, source) - kept
    assert not {key for key in kept if key in differing(target, before)}


def test_a_backbone_loads_from_a_file_with_another_head(tmp_path):
    state = build(1, classes=19).state_dict()
    encoder = {key: value for key, value in state.items() if not key.startswith("linear_")}
    torch.save(state, tmp_path / "segmentation.pt")
    torch.save(
        {**encoder, "head.weight": torch.ones(1000, 32), "head.bias": torch.ones(1000)}, tmp_path / "imagenet.pt"
    )
    for name in ("segmentation.pt", "imagenet.pt"):
        target = build(0)
        load_weights(target, tmp_path / name, what="backbone")
        assert torch.equal(target.state_dict()["norm4.weight"], state["norm4.weight"])
        assert torch.equal(target.state_dict()["block1.0.attn.q.weight"], state["block1.0.attn.q.weight"])


def drop(name):
    return lambda state: {key: value for key, value in state.items() if key != name}


MISFITS = {
    "one missing": (drop("norm4.bias"), r"1 missing \(norm4.bias\)"),
    "one too many": (
        lambda s: {**s, "block1.7.norm1.weight": torch.ones(8)},
        r"1 unexpected \(block1.7.norm1.weight\)",
    ),
    "one of another shape": (lambda s: {**s, "norm1.bias": torch.ones(9)}, r"1 mismatched \(norm1.bias\)"),
    "another family": (lambda s: {"a.weight": torch.ones(1)}, r"0 of \d+ entries fit, \d+ missing \(.*, \.\.\.\)"),
}


@pytest.mark.parametrize("misfit", MISFITS)
@pytest.mark.parametrize("what", ["all", "backbone"])
def test_a_misfit_is_refused_and_the_model_is_left(misfit, what, tmp_path):
    change, message = MISFITS[misfit]
    torch.save(change(build(1).state_dict()), tmp_path / "w.pt")
    target = build(0)
    with pytest.raises(UserError, match=message):
        load_weights(target, tmp_path / "w.pt", what=what)
    assert not differing(target, build(0))


def test_another_number_of_classes_fits_the_backbone_only(tmp_path):
    torch.save(build(1, classes=20).state_dict(), tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"2 mismatched \(linear_pred.weight, linear_pred.bias\); name the model"):
        load_weights(build(0), tmp_path / "w.pt", what="all")


def test_deeper_weights_do_not_pass_for_shallower(tmp_path):
    """Every entry of B0's depth is in a deeper file by name and shape: what is left over tells them apart."""
    deeper = build(1).state_dict()
    deeper |= {key.replace("block3.0", "block3.1"): v for key, v in deeper.items() if key.startswith("block3.0")}
    torch.save(deeper, tmp_path / "w.pt")
    with pytest.raises(UserError, match="unexpected"):
        load_weights(build(0), tmp_path / "w.pt", what="backbone")


@pytest.mark.parametrize(
    "content",
    [b"", b"not a checkpoint", b"\x80\x02K\x01."],
    ids=["empty", "text", "pickle of a number"],
)
def test_files_that_are_no_checkpoints(content, tmp_path):
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"w\.pt"):
        load_weights(build(), tmp_path / "w.pt", what="all")


@pytest.mark.parametrize("content", [{}, [1, 2], {"model": {}}, {"epoch": 3, "lr": 0.1}, {0: torch.ones(1)}])
def test_checkpoints_without_weights(content, tmp_path):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"w\.pt holds"):
        load_weights(build(), tmp_path / "w.pt", what="all")


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="no such checkpoint"):
        load_weights(build(), tmp_path / "w.pt", what="all")
