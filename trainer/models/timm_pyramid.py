"""timm/NAME: any timm backbone with a feature pyramid, under the semantic-FPN head that PVTv2 has.

Parameters are named `backbone.` + the name in timm's feature extractor, `neck.` and `head.`. Nothing is downloaded.
Letters: N samples, H and W input height and width, C_i width of stage i, s_i its stride.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.config import UserError, message_of
from trainer.models.base import EVERYTHING, Channels, Keys, SegModel, SegOutput, as_autocast
from trainer.models.fpn import FeaturePyramid, SemanticHead
from trainer.models.masks import KeyedMask, MaskDraw
from trainer.models.norm import GroupedBatchNorm1d, GroupedBatchNorm2d
from trainer.models.pyramid import STRIDES

PREFIX = "timm/"
PYRAMID_WIDTH, HEAD_WIDTH = 256, 128
"""As of PVTv2."""


def timm_network(name: str) -> Callable[..., SegModel]:
    """The builder of `timm/NAME`. Raises UserError for a name that timm does not have."""
    import timm  # takes seconds, so only when one is asked for

    asked = name.removeprefix(PREFIX)
    if "." in asked:
        raise UserError(
            f"{name}: the part behind the dot names pretrained weights, which are only read from files; write "
            f"{name.partition('.')[0]}, and the file under init"
        )
    if not timm.is_model(asked):
        near = difflib.get_close_matches(asked, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(PREFIX + one for one in near)}?" if near else "timm.list_models() lists all"
        raise UserError(f"unknown timm network '{asked}'; {hint}")
    return partial(TimmPyramid, backbone=asked)


class TimmPyramid(SegModel):
    """A timm backbone as a feature extractor, and a semantic-FPN head. It has no patch embeddings.

    `drop_path` applies where timm's network has stochastic depth. Raises UserError for a backbone without stages of the
    strides 4, 8, 16 and 32.
    """

    def __init__(self, num_classes: int, drop_path: float = 0.1, dropout: float = 0.1, *, backbone: str) -> None:
        super().__init__()
        self.name = f"{PREFIX}{backbone}"
        self.backbone = _extractor(backbone, drop_path)
        self.stages = _stages(self.name, self.backbone.feature_info.reduction())
        widths = tuple(self.backbone.feature_info.channels()[i] for i in self.stages)
        _replace(self.backbone)
        self.channels = Channels(widths, (), STRIDES, num_classes)
        self.neck = FeaturePyramid(widths, PYRAMID_WIDTH)
        self.head = SemanticHead(len(widths), PYRAMID_WIDTH, HEAD_WIDTH, num_classes, dropout)
        self.draw = MaskDraw(self.modules())
        self.drops = [module for module in self.modules() if isinstance(module, DroppedPath)]

    def forward(self, image: Tensor, keys: Keys | None = None, needs: AbstractSet[str] = EVERYTHING) -> SegOutput:
        """image (N, 3, H, W), H and W at least 32 and multiples of 4 -> SegOutput without patch embeddings."""
        if not needs & {"features", "logits"}:
            return SegOutput(None, (), ())
        masks = self.draw(keys)
        for drop in self.drops:
            drop.masks = masks
        features = self._features(image)
        return SegOutput(
            self.head(self.neck(features), masks) if "logits" in needs else None,
            tuple(map(as_autocast, features)) if "features" in needs else (),
            (),
        )

    def _features(self, image: Tensor) -> list[Tensor]:
        """Stage outputs (N, C_i, ceil(H / s_i), ceil(W / s_i)). The image is padded below and on the right to multiples
        of the last stride: timm's networks round other sizes in different ways."""
        height, width = image.shape[2:]
        padded = F.pad(image, (0, -width % STRIDES[-1], 0, -height % STRIDES[-1]))
        try:
            found = self.backbone(padded)
        except Exception as error:
            if isinstance(error, UserError) or not (padded.is_meta or self._refuses(padded)):
                raise
            raise UserError(
                f"{self.name} does not take images of {height}x{width}: {message_of(error)}; change data.size, or "
                "choose another network"
            ) from None
        maps = [_channels_first(found[i], c) for i, c in zip(self.stages, self.channels.features, strict=True)]
        return [x[:, :, : -(-height // s), : -(-width // s)] for x, s in zip(maps, STRIDES, strict=True)]

    def _refuses(self, image: Tensor) -> bool:
        """Whether the backbone cannot take images of this size on any device; else memory or a device has failed."""
        with torch.device("meta"):
            backbone = _extractor(self.name.removeprefix(PREFIX), 0.0)
        try:
            backbone(torch.empty(image.shape, device="meta"))
        except Exception:
            return True
        return False


class DroppedPath(KeyedMask):
    """Stochastic depth in the place of timm's, which passes no masks: the network sets `masks` before a forward."""

    masks: Any = None

    def forward(self, branch: Tensor) -> Tensor:
        """branch (N, ...) -> the same shape."""
        mask = self.of(self.masks, branch)
        return branch if mask is None else branch * mask.view(-1, *[1] * (branch.ndim - 1))


class GroupedBatchNormAct2d(GroupedBatchNorm2d):
    """timm's BatchNorm with an activation behind it, in groups of `norm_batch` samples."""

    act: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) -> the same shape."""
        return self.act(super().forward(x))


def _extractor(backbone: str, drop_path: float) -> Any:
    """timm's feature extractor, with stochastic depth and for images of any size where it knows these settings."""
    import timm

    sized = {"strict_img_size": False}
    for settings in ({"drop_path_rate": drop_path, **sized}, {"drop_path_rate": drop_path}, sized):
        try:
            return timm.create_model(backbone, pretrained=False, features_only=True, **settings)
        except TypeError:  # a setting that this network does not have
            continue
        except (RuntimeError, AttributeError, AssertionError):
            break
    try:
        return timm.create_model(backbone, pretrained=False, features_only=True)
    except Exception as error:
        raise UserError(
            f"{PREFIX}{backbone} gives no features: {message_of(error)}; choose a backbone with stages, such as "
            f"{PREFIX}resnet18"
        ) from None


def _stages(name: str, reductions: list[int]) -> tuple[int, ...]:
    """The deepest stage of each of STRIDES. Raises UserError where one is missing."""
    if missing := [stride for stride in STRIDES if stride not in reductions]:
        raise UserError(
            f"{name} has no feature pyramid: stages of strides {', '.join(map(str, STRIDES))} are needed, but its "
            f"strides are {', '.join(map(str, reductions))}, without {', '.join(map(str, missing))}; choose a "
            f"backbone with stages, such as {PREFIX}resnet18, or write a network of your own"
        )
    return tuple(len(reductions) - 1 - reductions[::-1].index(stride) for stride in STRIDES)


def _replace(backbone: nn.Module) -> None:
    """Put our BatchNorm and stochastic depth in the place of timm's; other dropout, which has no keys, is off."""
    from timm.layers import BatchNormAct2d, DropPath

    for path, parent in list(backbone.named_modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, DropPath):
                rate = float(module.drop_prob or 0.0)
                setattr(parent, name, DroppedPath(f"backbone.{path}.{name}", rate))
            elif isinstance(module, nn.BatchNorm2d):
                kind = GroupedBatchNormAct2d if isinstance(module, BatchNormAct2d) else GroupedBatchNorm2d
                setattr(parent, name, _grouped(module, kind))
            elif isinstance(module, nn.BatchNorm1d):
                setattr(parent, name, _grouped(module, GroupedBatchNorm1d))
            elif isinstance(module, nn.Dropout | nn.Dropout2d):
                module.p = 0.0


def _grouped(norm: nn.BatchNorm1d | nn.BatchNorm2d, kind: type[GroupedBatchNorm2d]) -> GroupedBatchNorm2d:
    """Our BatchNorm with the parameters of timm's, and its activation."""
    grouped = kind(norm.num_features, eps=norm.eps, momentum=norm.momentum or 0.1)
    grouped.weight, grouped.bias = norm.weight, norm.bias
    if isinstance(grouped, GroupedBatchNormAct2d):
        grouped.act = norm.get_submodule("act")
    return grouped


def _channels_first(x: Tensor, width: int) -> Tensor:
    """A map (N, C, h, w); some networks give (N, h, w, C)."""
    return x if x.shape[1] == width else x.permute(0, 3, 1, 2)
