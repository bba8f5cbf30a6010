"""MODELS: name -> builder. A builder takes (num_classes, drop_path=0.1, dropout=0.1) and returns a SegModel."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from trainer.config import ModelConfig, UserError, unknown
from trainer.config.blame import named
from trainer.models.base import Channels, SegModel
from trainer.models.inputs import RGB, with_channels
from trainer.models.lvt import GEOMETRIES as LVT_GEOMETRIES
from trainer.models.lvt import LiteVisionTransformer
from trainer.models.pvtv2 import VARIANTS, PVTv2
from trainer.models.segformer import GEOMETRIES, SegFormer
from trainer.models.timm_pyramid import PREFIX, timm_network

MODELS: dict[str, Callable[..., SegModel]] = {
    **{name: partial(SegFormer, geometry=geometry) for name, geometry in GEOMETRIES.items()},
    **{name: partial(PVTv2, variant=variant) for name, variant in VARIANTS.items()},
    **{name: partial(LiteVisionTransformer, geometry=geometry) for name, geometry in LVT_GEOMETRIES.items()},
}


def network(name: str) -> Callable[..., SegModel]:
    """The builder of a network's name: one of MODELS, or timm/NAME. Raises UserError for an unknown one."""
    if name.startswith(PREFIX):
        return timm_network(name)
    if name not in MODELS:
        raise unknown("model", name, MODELS)
    return MODELS[name]


def build_model(config: ModelConfig, num_classes: int, channels: int = RGB) -> SegModel:
    """The network of a config with fresh weights, for images of `channels`. Raises UserError for an unknown name, and
    for a builder that returns something else."""
    build = network(config.name)
    model: object = build(num_classes, drop_path=config.drop_path, dropout=config.dropout)
    begin = f"{named(build)}the model '{config.name}' must "
    if not isinstance(model, SegModel):
        raise UserError(f"{begin}be a SegModel (trainer.models.base), but is {type(model).__name__}; derive from it")
    if not isinstance(found := getattr(model, "channels", None), Channels):
        raise UserError(
            f"{begin}have its geometry in `channels`, a Channels (trainer.models.base), but has {found!r}; set it in "
            "__init__"
        )
    if type(model).forward is SegModel.forward:
        raise UserError(f"{begin}implement forward(image, keys, needs); write it")
    return with_channels(model, channels)
