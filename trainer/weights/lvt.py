"""Names of LVT's weights in TransKD and in Chenglin-Yang/LVT."""

from __future__ import annotations

from trainer.weights.naming import Naming, State, without_prefix

_FIRST = r"backbone\.0\.0\.proj\.weight"


def _mmsegmentation(state: State) -> State:
    """Remove the first of two `backbone.` prefixes, and `decode_head.`."""
    return without_prefix(state, "backbone.", "decode_head.")


NAMINGS = (
    Naming("TransKD LVT", (_FIRST, r"linear_pred\.weight"), {}, "unit", shared=True),
    Naming("official ImageNet LVT", (_FIRST,), {}, "imagenet", drop=("head.", "norm.", "downstream_norms.")),
    Naming(
        "LVT segmentor in mmsegmentation",
        (r"backbone\.backbone\.0\.0\.proj\.weight",),
        {},
        "imagenet",
        drop=("auxiliary_head.", "backbone.downstream_norms.", "decode_head.conv_seg."),
        prepare=_mmsegmentation,
    ),
)
