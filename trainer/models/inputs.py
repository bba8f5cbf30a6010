"""Networks of other inputs than RGB: the first patch embedding, adapted as timm adapts it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from trainer.config import UserError
from trainer.models.base import SegModel

RGB = 3


def adapted(weight: Tensor, channels: int) -> Tensor:
    """A kernel (O, 3, h, w) of RGB as one of `channels`: summed for one, else repeated in turn and scaled by 3 /
    `channels`, so that outputs keep their size (Wightman, timm: `adapt_input_conv`)."""
    from timm.models import adapt_input_conv

    found: Tensor = adapt_input_conv(channels, weight)
    return found


def with_channels(model: SegModel, channels: int) -> SegModel:
    """The network for images of `channels`, whose fresh weights are adapted from those for RGB. Raises UserError for a
    network without a convolution of RGB."""
    if channels == RGB:
        return model
    name = _first(model)
    first = model.get_submodule(name.rpartition(".")[0])
    assert isinstance(first, nn.Conv2d)
    first.in_channels = channels
    first.weight = nn.Parameter(adapted(first.weight.detach(), channels))
    model.channels = model.channels._replace(inputs=channels)
    return model


def adapt_state(state: Mapping[str, Tensor], model: SegModel) -> Mapping[str, Tensor]:
    """The weights of a network for RGB as those of `model`, where it has another number of channels; else as given."""
    channels = model.channels.inputs
    if channels == RGB:
        return state
    target = model.state_dict()
    found = dict(state)
    for name, tensor in state.items():
        wanted = target[name].shape if name in target else ()
        if tensor.ndim == 4 and tensor.shape[1] == RGB and wanted == (len(tensor), channels, *tensor.shape[2:]):
            found[name] = adapted(tensor, channels)
    return found


def _first(model: SegModel) -> str:
    """The name of the kernel that reads the image."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == RGB and module.groups == 1:
            return f"{name}.weight"
    raise UserError("the network has no convolution of RGB that could read other channels; choose another student.name")
