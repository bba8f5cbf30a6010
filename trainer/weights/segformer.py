"""Names of SegFormer's weights in NVlabs, TransKD, mmsegmentation and Hugging Face.

Sources: NVlabs/SegFormer and open-mmlab/mmsegmentation (`mmseg/models/backbones`, `decode_heads`, and
`tools/model_converters/mit2mmseg.py`), huggingface/transformers (`models/segformer`, 4.x and 5.x), RuipingL/TransKD.
"""

from __future__ import annotations

import torch

from trainer.weights.naming import Naming, State, without_prefix


def _hugging_face(state: State) -> State:
    """Join keys and values into one entry `key_value`, and remove the prefix `segformer.`."""
    joined = without_prefix(state, "segformer.")
    for key, value in ((".key.", ".value."), (".k_proj.", ".v_proj.")):
        for name in [name for name in joined if key in name and name.replace(key, value) in joined]:
            pair = [joined.pop(name), joined.pop(name.replace(key, value))]
            joined[name.replace(key, ".key_value.")] = torch.cat(pair)
    return joined


def _mmsegmentation(state: State) -> State:
    """Split the query from keys and values, and turn 1x1 convolutions into linear layers."""
    split = {}
    for name, tensor in without_prefix(state, "backbone.").items():
        owner, found, leaf = name.partition(".attn.attn.in_proj_")
        if found:
            width = len(tensor) // 3
            split[f"{owner}.attn.q.{leaf}"], split[f"{owner}.attn.kv.{leaf}"] = tensor[:width], tensor[width:]
        elif name.endswith((".ffn.layers.0.weight", ".ffn.layers.4.weight")):
            split[name] = tensor.flatten(1)
        else:
            split[name] = tensor
    return split


def _nvlabs(state: State) -> State:
    return without_prefix(state, "backbone.", "decode_head.")


_HEAD = {
    "decode_head.linear_fuse": "linear_fuse.conv",
    "decode_head.batch_norm": "linear_fuse.bn",
    "decode_head.classifier": "linear_pred",
}
_HUGGING_FACE_4 = {
    "encoder.patch_embeddings.{z}.proj": "patch_embed{s}.proj",
    "encoder.patch_embeddings.{z}.layer_norm": "patch_embed{s}.norm",
    "encoder.block.{z}.{i}.layer_norm_1": "block{s}.{i}.norm1",
    "encoder.block.{z}.{i}.layer_norm_2": "block{s}.{i}.norm2",
    "encoder.block.{z}.{i}.attention.self.query": "block{s}.{i}.attn.q",
    "encoder.block.{z}.{i}.attention.self.key_value": "block{s}.{i}.attn.kv",
    "encoder.block.{z}.{i}.attention.self.sr": "block{s}.{i}.attn.sr",
    "encoder.block.{z}.{i}.attention.self.layer_norm": "block{s}.{i}.attn.norm",
    "encoder.block.{z}.{i}.attention.output.dense": "block{s}.{i}.attn.proj",
    "encoder.block.{z}.{i}.mlp.dense1": "block{s}.{i}.mlp.fc1",
    "encoder.block.{z}.{i}.mlp.dense2": "block{s}.{i}.mlp.fc2",
    "encoder.block.{z}.{i}.mlp.dwconv.dwconv": "block{s}.{i}.mlp.dwconv.dwconv",
    "encoder.layer_norm.{z}": "norm{s}",
    "decode_head.linear_c.{z}.proj": "linear_c{s}.proj",
    **_HEAD,
}
_HUGGING_FACE_5 = {
    "stages.{z}.patch_embeddings.proj": "patch_embed{s}.proj",
    "stages.{z}.patch_embeddings.layer_norm": "patch_embed{s}.norm",
    "stages.{z}.blocks.{i}.layernorm_before": "block{s}.{i}.norm1",
    "stages.{z}.blocks.{i}.layernorm_after": "block{s}.{i}.norm2",
    "stages.{z}.blocks.{i}.attention.q_proj": "block{s}.{i}.attn.q",
    "stages.{z}.blocks.{i}.attention.key_value": "block{s}.{i}.attn.kv",
    "stages.{z}.blocks.{i}.attention.o_proj": "block{s}.{i}.attn.proj",
    "stages.{z}.blocks.{i}.attention.sequence_reduction.sequence_reduction": "block{s}.{i}.attn.sr",
    "stages.{z}.blocks.{i}.attention.sequence_reduction.layer_norm": "block{s}.{i}.attn.norm",
    "stages.{z}.blocks.{i}.mlp.{rest}": "block{s}.{i}.mlp.{rest}",
    "stages.{z}.layer_norm": "norm{s}",
    "decode_head.linear_projections.{z}.proj": "linear_c{s}.proj",
    **_HEAD,
}
_MMSEGMENTATION = {
    "layers.{z}.0.projection": "patch_embed{s}.proj",
    "layers.{z}.0.norm": "patch_embed{s}.norm",
    "layers.{z}.1.{i}.attn.attn.out_proj": "block{s}.{i}.attn.proj",
    "layers.{z}.1.{i}.ffn.layers.0": "block{s}.{i}.mlp.fc1",
    "layers.{z}.1.{i}.ffn.layers.1": "block{s}.{i}.mlp.dwconv.dwconv",
    "layers.{z}.1.{i}.ffn.layers.4": "block{s}.{i}.mlp.fc2",
    "layers.{z}.1.{i}.{rest}": "block{s}.{i}.{rest}",
    "layers.{z}.2": "norm{s}",
}

NAMINGS = (
    Naming(
        "TransKD SegFormer",
        (r"patch_embed1\.proj\.weight", r"block1\.0\.attn\.q\.weight", r"linear_pred\.weight"),
        {},
        "unit",
        shared=True,
    ),
    Naming(
        "NVlabs ImageNet MiT",
        (r"patch_embed1\.proj\.weight", r"block1\.0\.attn\.q\.weight"),
        {},
        "imagenet",
        drop=("head.",),
    ),
    Naming(
        "NVlabs SegFormer",
        (r"backbone\.patch_embed1\.proj\.weight", r"backbone\.block1\.0\.attn\.q\.weight"),
        {},
        "imagenet",
        drop=("decode_head.conv_seg.", "auxiliary_head."),
        prepare=_nvlabs,
    ),
    Naming(
        "mmsegmentation SegFormer",
        (r"(backbone\.)?layers\.0\.0\.projection\.weight", r"(backbone\.)?layers\.0\.1\.0\.attn\.attn\.in_proj_weight"),
        _MMSEGMENTATION,
        "imagenet",
        drop=("auxiliary_head.",),
        prepare=_mmsegmentation,
        remark="mmsegmentation's head normalises each projection, SegFormer's does not: only the backbone of such "
        "files can be used",
    ),
    Naming(
        "Hugging Face SegFormer",
        (
            r"(segformer\.)?encoder\.patch_embeddings\.0\.proj\.weight",
            r"(segformer\.)?encoder\.block\.0\.0\.attention\.self\.query\.weight",
        ),
        _HUGGING_FACE_4,
        "imagenet",
        drop=("classifier.",),
        prepare=_hugging_face,
    ),
    Naming(
        "Hugging Face SegFormer (5.x)",
        (
            r"(segformer\.)?stages\.0\.patch_embeddings\.proj\.weight",
            r"(segformer\.)?stages\.0\.blocks\.0\.attention\.q_proj\.weight",
        ),
        _HUGGING_FACE_5,
        "imagenet",
        drop=("classifier.",),
        prepare=_hugging_face,
    ),
)
