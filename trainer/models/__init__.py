"""MODELS: name -> builder. A builder takes (num_classes, drop_path=0.1, dropout=0.1) and returns a SegModel."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from trainer.config import ModelConfig, unknown
from trainer.models.base import SegModel
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
    """The network of a config with fresh weights, for images of `channels`. Raises UserError for an unknown name."""
    model = network(config.name)(num_classes, drop_path=config.drop_path, dropout=config.dropout)
    return with_channels(model, channels)
