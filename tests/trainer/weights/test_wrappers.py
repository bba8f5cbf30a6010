"""Every wrapper of public weights: averages, compiled and parallel modules, what trainers save beside weights."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.trainer.weights.public_weights import KINDS, SMALL, State, before_each, fresh
from trainer.weights import load_weights


def zeros(state: State) -> State:
    return {name: torch.zeros_like(tensor) for name, tensor in state.items()}


WRAPPERS: dict[str, Callable[[State], Any]] = {
    "any prefix": before_each("net.inner."),
    "torch.compile": before_each("_orig_mod."),
    "torch.compile inside DDP": before_each("module._orig_mod."),
    "Lightning": lambda s: {"state_dict": {**before_each("model.")(s), "criterion.weight": torch.ones(3)}, "epoch": 3},
    "mmrazor": lambda s: {"state_dict": {**before_each("architecture.")(s), **before_each("teacher.")(zeros(s))}},
    "distilled": lambda s: {
        **before_each("architecture.student.")(s),
        **before_each("architecture.teacher.")(zeros(s)),
    },
    "model_state_dict": lambda s: {
        "model_state_dict": s,
        "optimizer_state_dict": {"state": {0: {"step": torch.ones(1)}}},
    },
    "timm": lambda s: {"state_dict": zeros(s), "state_dict_ema": s, "arch": "x", "args": argparse.Namespace(lr=0.1)},
    "DeepSpeed": lambda s: {"module": s, "global_steps": 7},
    "torch.optim.swa_utils": lambda s: {"n_averaged": torch.tensor(5), **before_each("module.")(s)},
    "thop": lambda s: {**s, **{f"{n.rpartition('.')[0]}.total_ops": torch.ones(1, dtype=torch.float64) for n in s}},
    "YOLO": lambda s: {"model": None, "ema": {"module": s}, "date": datetime.datetime(2024, 1, 1)},
    "FSDP": lambda s: {n.replace(".0.", ".0._fsdp_wrapped_module.", 1): t for n, t in s.items()},
    "mmengine": lambda s: {
        "meta": {"mIoU": np.float64(0.7), "seed": np.int64(1), "iou": np.arange(3.0)},
        "state_dict": s,
    },
    "a path": lambda s: {"state_dict": s, "cfg": {"out": Path("x")}},
}


@pytest.mark.slow
@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("network", SMALL)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_weights_in_any_wrapper(wrapper, network, zipped, source, tmp_path):
    original = source(SMALL[network])
    content = WRAPPERS[wrapper](dict(original.state_dict()))
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    model = fresh(SMALL[network], original, "all")
    assert load_weights(model, tmp_path / "w.pth", what="all").complete
    assert all(torch.equal(tensor, original.state_dict()[name]) for name, tensor in model.state_dict().items())


def tensors(content: dict[str, Any]) -> State:
    return next((content[key] for key in ("model", "state_dict") if key in content), content)


@pytest.mark.parametrize(("network", "kind"), KINDS)
def test_any_naming_in_a_wrapper(network, kind, source, tmp_path):
    write, what, title, _ = KINDS[network, kind]
    original = source(SMALL[network])
    torch.save(
        {"ema_state_dict": before_each("module.net.")(tensors(write(original.state_dict())))}, tmp_path / "w.pth"
    )
    model = fresh(SMALL[network], original, what)
    coverage = load_weights(model, tmp_path / "w.pth", what=what)
    assert coverage.complete
    if title != "this program":
        assert coverage.format == f"{title} (averaged weights)"
    assert all(torch.equal(tensor, original.state_dict()[name]) for name, tensor in model.state_dict().items())
