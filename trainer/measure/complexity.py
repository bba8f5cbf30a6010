"""Parameters and MACs of a network, MACs by two conventions. Measured latency and memory are in footprint.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from trainer.config import ModelConfig
from trainer.models import build_model
from trainer.models.base import LOGITS


def parameters(module: nn.Module) -> int:
    """The number of parameters, without buffers."""
    return sum(parameter.numel() for parameter in module.parameters())


def paper_macs(module: nn.Module, forward: Callable[[], object]) -> int:
    """MACs of the submodules of `module` that `forward` calls, by the convention of TransKD (arXiv 2202.13393).

    Counted: convolutions with bias, linear layers without, 2 per element for affine norms, 1 for other norms and ReLU,
    and the input's elements for pooling. Not counted: attention products, softmax, GELU, sigmoid, interpolation. A
    module that computes the published function in a cheaper way has a method `paper_macs(inputs, output)` that returns
    the MACs of the published way.
    """
    total = 0

    def count(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal total
        total += _rule(layer)(inputs, output)

    handles = [layer.register_forward_hook(count) for layer in module.modules()]
    try:
        with torch.no_grad():
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return total


def _rule(layer: nn.Module) -> Callable[[tuple[Any, ...], Any], int]:
    if isinstance(layer, nn.Conv1d | nn.Conv2d):
        kernel = math.prod(layer.kernel_size) * layer.in_channels // layer.groups
        return lambda inputs, output: output.numel() * (kernel + (layer.bias is not None))
    if isinstance(layer, nn.Linear):
        return lambda inputs, output: output.numel() * layer.in_features
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        return lambda inputs, output: output.numel() * (2 if layer.affine else 1)
    if isinstance(layer, nn.LayerNorm):
        return lambda inputs, output: output.numel() * (2 if layer.elementwise_affine else 1)
    if isinstance(layer, nn.ReLU):
        return lambda inputs, output: output.numel()
    if isinstance(layer, nn.AdaptiveAvgPool1d | nn.AdaptiveAvgPool2d | nn.AvgPool2d | nn.MaxPool2d):
        return lambda inputs, output: inputs[0].numel()
    return getattr(layer, "paper_macs", lambda inputs, output: 0)


def deployed(config: ModelConfig, num_classes: int, size: tuple[int, int], channels: int = 3) -> dict[str, float]:
    """Costs of a network for the logits of one image of `size` (H, W), counted on the meta device, without weights.

    `params_m`: parameters in millions. `gmacs`: all products that run, attention included, norms not. `gmacs_paper`:
    as the TransKD paper counts them, see `paper_macs`.
    """
    with torch.device("meta"):
        model = build_model(config, num_classes, channels).eval()
        image = torch.empty(1, channels, *size)
    with FlopCounterMode(display=False) as counter:  # on the CPU it does not see fused attention
        paper = paper_macs(model, lambda: model(image, needs=LOGITS))
    return {
        "params_m": parameters(model) / 1e6,
        "gmacs_paper": paper / 1e9,
        "gmacs": counter.get_total_flops() / 2 / 1e9,
    }
