"""Names of PVTv2's weights in whai362/PVT, TransKD and timm."""

from __future__ import annotations

from trainer.weights.naming import Naming, State, without_prefix

_OFFICIAL = {
    "patch_embed1.{rest}": "backbone.patch_embed.{rest}",
    "patch_embed{s}.{rest}": "backbone.stages.{z}.downsample.{rest}",
    "block{s}.{i}.mlp.dwconv.dwconv": "backbone.stages.{z}.blocks.{i}.mlp.dwconv",
    "block{s}.{i}.{rest}": "backbone.stages.{z}.blocks.{i}.{rest}",
    "norm{s}": "backbone.stages.{z}.norm",
}
_TIMM = {"patch_embed.{rest}": "backbone.patch_embed.{rest}", "stages.{rest}": "backbone.stages.{rest}"}


def _without_backbone(state: State) -> State:
    return without_prefix(state, "backbone.")


NAMINGS = (
    Naming(
        "TransKD PVTv2 in the names of this program",
        (r"backbone\.patch_embed\.proj\.weight", r"backbone\.stages\.0\.blocks\.0\.attn\.q\.weight"),
        {},
        None,
    ),
    Naming(
        "TransKD PVTv2",
        (r"backbone\.patch_embed1\.proj\.weight", r"backbone\.block1\.0\.attn\.q\.weight", r"head\.conv_seg\.weight"),
        _OFFICIAL,
        "unit",
        prepare=_without_backbone,
    ),
    Naming(
        "PVTv2 segmentor in mmsegmentation",
        (r"backbone\.patch_embed1\.proj\.weight", r"backbone\.block1\.0\.attn\.q\.weight"),
        _OFFICIAL,
        "imagenet",
        drop=("auxiliary_head.",),
        prepare=_without_backbone,
        remark="mmsegmentation's FPN head has BatchNorm, ours has none: only the backbone of such files can be used",
    ),
    Naming(
        "official ImageNet PVTv2",
        (r"patch_embed1\.proj\.weight", r"block1\.0\.attn\.q\.weight"),
        _OFFICIAL,
        "imagenet",
        drop=("head.",),
    ),
    Naming(
        "timm PVTv2",
        (r"patch_embed\.proj\.weight", r"stages\.0\.blocks\.0\.attn\.q\.weight"),
        _TIMM,
        "imagenet",
        drop=("head.",),
    ),
    Naming(
        "timm PVTv2 with features_only",
        (r"patch_embed\.proj\.weight", r"stages_0\.blocks\.0\.attn\.q\.weight"),
        {"stages_{z}.{rest}": "backbone.stages.{z}.{rest}", **_TIMM},
        "imagenet",
    ),
)
