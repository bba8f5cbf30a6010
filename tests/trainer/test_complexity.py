"""Costs against the published table, and the convention rule by rule."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trainer.complexity import deployed, gmacs, gmacs_paper, measure, paper_macs
from trainer.config import ModelConfig
from trainer.models import MODELS

SIZE = (512, 1024)


@pytest.mark.parametrize(
    ("name", "params_m", "paper", "runs"),
    [("segformer_b0", 3.72, 13.67, 9.21), ("segformer_b2", 27.36, 113.84, 52.48)],
)
def test_published_numbers(name, params_m, paper, runs):
    cost = deployed(ModelConfig(name=name), 20, SIZE)
    assert {key: round(value, 2) for key, value in cost.items()} == {
        "params_m": params_m,
        "gmacs_paper": paper,
        "gmacs": runs,
    }


def test_unfolded_head_would_cost_what_was_measured():
    """17.77 with attention products in the published arrangement: ours, less the folded head, plus the published."""
    with torch.device("meta"):
        model = MODELS["segformer_b0"](20)
    width = 256
    stages = list(zip(model.channels.features, (128, 64, 32, 16), (256, 128, 64, 32), strict=True))
    folded = sum(width * c * (h * w + width) + width * width for c, h, w in stages)  # products, and folding them
    published = sum(width * c * h * w for c, h, w in stages) + 4 * width * width * 128 * 256
    assert gmacs(model, SIZE) + (published - folded) / 1e9 == pytest.approx(17.77, abs=0.005)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_a_cost(name):
    cost = deployed(ModelConfig(name=name), 7, (64, 64))
    assert set(cost) == {"params_m", "gmacs_paper", "gmacs"}
    assert all(value > 0 for value in cost.values())


def test_costs_grow_with_the_input():
    small, large = (deployed(ModelConfig(name="segformer_tiny"), 7, size) for size in ((64, 64), (64, 128)))
    assert small["gmacs_paper"] < large["gmacs_paper"]
    assert small["gmacs"] < large["gmacs"]
    assert small["params_m"] == large["params_m"]


def test_counting_leaves_the_model_as_it_was():
    model = MODELS["segformer_tiny"](7).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    gmacs(model, (64, 64))
    gmacs_paper(model, (64, 64))
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("layer", "shape", "macs"),
    [
        (nn.Conv2d(4, 6, 3, padding=1), (1, 4, 5, 7), 5 * 7 * 6 * (4 * 9 + 1)),
        (nn.Conv2d(4, 6, 3, padding=1, bias=False), (1, 4, 5, 7), 5 * 7 * 6 * 4 * 9),
        (nn.Conv2d(4, 4, 3, padding=1, groups=4), (1, 4, 5, 7), 5 * 7 * 4 * (9 + 1)),
        (nn.Conv1d(4, 6, 3, padding=1), (1, 4, 9), 9 * 6 * (4 * 3 + 1)),
        (nn.Linear(4, 6), (1, 9, 4), 9 * 6 * 4),
        (nn.BatchNorm2d(4), (1, 4, 5, 7), 2 * 4 * 5 * 7),
        (nn.BatchNorm1d(4), (2, 4), 2 * 8),
        (nn.LayerNorm(4), (1, 9, 4), 2 * 9 * 4),
        (nn.ReLU(), (1, 4, 5, 7), 4 * 5 * 7),
        (nn.AdaptiveAvgPool2d(1), (1, 4, 5, 7), 4 * 5 * 7),
        (nn.GELU(), (1, 4, 5, 7), 0),
        (nn.Sigmoid(), (1, 4, 5, 7), 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_convention(layer, shape, macs):
    model = nn.Sequential(layer).eval()
    assert paper_macs(model, lambda: model(torch.rand(shape))) == macs


def test_modules_called_twice_are_counted_twice_and_functions_not_at_all():
    layer = nn.Linear(4, 4)
    assert paper_macs(layer, lambda: F.softmax(layer(layer(torch.rand(3, 4))), -1)) == 2 * 3 * 16


def test_hooks_go_even_when_the_forward_fails():
    layer = nn.Linear(4, 4)
    with pytest.raises(RuntimeError):
        paper_macs(layer, lambda: layer(torch.rand(3, 5)))
    assert not layer._forward_hooks


def test_measure_gives_a_latency():
    result = measure(MODELS["segformer_tiny"](7), (32, 64), torch.device("cpu"), repeats=3)
    assert set(result) == {"latency_ms"}
    assert result["latency_ms"] > 0


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_measure_on_a_gpu_gives_the_peak_too():
    result = measure(MODELS["segformer_b0"](7), (64, 128), torch.device("cuda"), repeats=3)
    assert result["peak_mib"] > 3.7 * 4 / 1.1
