"""Latency and peak memory: what is counted, and that a run does not notice."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from trainer.measure.footprint import measure
from trainer.models import MODELS
from trainer.models.base import Channels, SegModel, SegOutput

CPU = torch.device("cpu")


class Known(SegModel):
    """A network whose maps at 32 x 64 are of 8 KiB, and which sleeps."""

    def __init__(self, sleep_s=0.0):
        super().__init__()
        self.channels = Channels((), (), (), classes=1)
        self.weight = nn.Parameter(torch.ones(256))  # 1 KiB
        self.register_buffer("offset", torch.zeros(512))  # 2 KiB
        self.sleep_s, self.calls = sleep_s, 0

    def forward(self, image, keys=None, needs=frozenset()):
        self.calls += 1
        time.sleep(self.sleep_s)
        one = image[:, :1] * self.weight[0]  # 8 KiB
        two = one + self.offset[0]  # 16
        one = one.view(-1)  # the same memory
        three = torch.cat([one, one])  # 32
        del one, two  # 16
        return SegOutput(three.relu_()[:, None] + 1, (), ())  # 32


def test_peak_memory_is_what_lives_at_once():
    """1 + 2 KiB held, 24 of the image, and 32 at most beyond them; views and changes in place take nothing."""
    assert measure(Known(), (32, 64), CPU, repeats=1)["peak_mib"] == (1 + 2 + 24 + 32) / 1024


def test_latency_is_of_one_pass_and_measuring_ends_in_time():
    started = time.monotonic()
    result = measure(Known(sleep_s=0.05), (32, 64), CPU, repeats=1000, limit_s=0.2)
    assert result["latency_ms"] >= 50
    assert time.monotonic() - started < 25, "a thousand passes take 50 s"


def test_one_pass_is_measured_however_slow():
    assert measure(Known(sleep_s=0.01), (32, 64), CPU, limit_s=0.0)["latency_ms"] >= 10


@pytest.mark.parametrize("name", ["segformer_tiny", "pvtv2_mini", "lvt_mini"])
def test_a_network_needs_more_than_its_weights_and_more_for_larger_images(name):
    model = MODELS[name](7)
    small, large = (measure(model, size, CPU, repeats=1)["peak_mib"] for size in ((64, 64), (128, 128)))
    held = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers())) / 2**20
    image = 3 * 64 * 64 * 4 / 2**20
    assert held + image < small < large - 3 * image
    assert large - held == pytest.approx(4 * (small - held), rel=0.5)


def test_measuring_leaves_the_model_and_the_random_state_as_they_were():
    model = MODELS["segformer_tiny"](7).train()
    model(torch.rand(2, 3, 32, 64), torch.arange(2)).logits.sum().backward()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    state = torch.get_rng_state()
    measure(model, (32, 64), CPU, repeats=2)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(torch.equal(parameter.grad, old) for parameter, old in zip(model.parameters(), gradients, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_on_a_gpu_what_a_run_holds_besides_is_not_counted():
    model, device = MODELS["segformer_b0"](7), torch.device("cuda")
    alone = measure(model, (64, 128), device, repeats=3)
    besides = torch.empty(2**28, dtype=torch.uint8, device=device)
    beside = measure(model, (64, 128), device, repeats=3)
    assert besides.is_cuda and beside["peak_mib"] == pytest.approx(alone["peak_mib"], rel=0.05)
    assert 3.7 * 4 / 1.1 < alone["peak_mib"] < 256
