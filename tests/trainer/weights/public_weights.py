"""Our weights as files of other projects, under every naming; networks to load them into, and their golden output.

The tables of names in tests/golden were written from the projects that use them, not from ours; mmsegmentation's names
(`mmseg/models/backbones/mit.py`) are spelled out below.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer.config import ModelConfig
from trainer.models import SegModel, build_model
from trainer.rng import initialising

State = dict[str, Tensor]
Kind = tuple[Callable[[State], Any], str, str, str | None]
"""Of a kind of file: how it is made of our weights, what of it is loaded, what it is called, its normalisation."""

TABLES = Path(__file__).parents[2] / "golden"


def table(name: str, column: str) -> dict[str, list[str]]:
    """The reference's name of an entry -> its names in a column: two where it is split, none where it is not there."""
    with (TABLES / f"names_{name}.csv").open() as file:
        rows = [(row["transkd"], row[column]) for row in csv.DictReader(file)]
    return {ours: [] if theirs == "-" else theirs.split(" ++ ") for ours, theirs in rows}


def renamed(state: State, name: str, column: str) -> State:
    """The entries under another project's names; of a smaller network fewer of the names are used."""
    theirs: State = {}
    for ours, others in table(name, column).items():
        if ours in state:
            parts = state[ours].chunk(len(others)) if len(others) > 1 else [state[ours]] * len(others)
            theirs.update(zip(others, parts, strict=True))
    return theirs


def mmsegmentation(state: State) -> State:
    """The backbone as `MixVisionTransformer` names it, and a head of another kind."""
    theirs: State = {}
    for name, tensor in state.items():
        part, _, rest = name.partition(".")
        stage = int(part[-1]) - 1 if part[-1].isdigit() else 0
        prefix = f"backbone.layers.{stage}"
        if part.startswith("patch_embed"):
            theirs[f"{prefix}.0.{rest.replace('proj', 'projection')}"] = tensor
        elif part.startswith("norm"):
            theirs[f"{prefix}.2.{rest}"] = tensor
        elif part.startswith("block"):
            block, _, inner = rest.partition(".")
            owner = f"{prefix}.1.{block}"
            leaf = inner.rpartition(".")[2]
            if inner.startswith("attn.q."):
                both = torch.cat([tensor, state[name.replace(".q.", ".kv.")]])
                theirs[f"{owner}.attn.attn.in_proj_{leaf}"] = both
            elif inner.startswith("attn.proj."):
                theirs[f"{owner}.attn.attn.out_proj.{leaf}"] = tensor
            elif inner.startswith("mlp."):
                layer = {"fc1": 0, "dwconv": 1, "fc2": 4}[inner.split(".")[1]]
                pixelwise = tensor[:, :, None, None] if tensor.ndim == 2 else tensor
                theirs[f"{owner}.ffn.layers.{layer}.{leaf}"] = pixelwise
            elif not inner.startswith("attn.kv."):
                theirs[f"{owner}.{inner}"] = tensor
    head = {"convs.0.conv.weight": torch.ones(256, 32, 1, 1), "conv_seg.weight": torch.ones(20, 256, 1, 1)}
    return {**theirs, **{f"decode_head.{name}": tensor for name, tensor in head.items()}}


def distilled(state: State) -> State:
    """TransKD-EA's wrapper, whose own patch embeddings have the names of the student's without their prefix."""
    student = {f"student.{name}": tensor for name, tensor in state.items()}
    own = {name: torch.full_like(tensor, 7.0) for name, tensor in state.items() if name.startswith("patch_embed")}
    return {**student, **own, "skfs.0.conv1.0.weight": torch.ones(64, 256, 1, 1), "fuse_weights.0": torch.ones(1)}


def best(state: State) -> dict[str, Any]:
    """The reference's model_best.pth.tar."""
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    optimiser = torch.optim.AdamW([weight])
    optimiser.step()
    extra = {"epoch": 7, "arch": "SegFormer(...)", "best_acc": torch.tensor(0.5), "optimizer": optimiser.state_dict()}
    return {**extra, "state_dict": state}


def columns(column: str) -> Callable[[State], State]:
    return lambda state: renamed(state, "segformer_b0", column)


def classifier(width: int, name: str = "head") -> State:
    return {f"{name}.weight": torch.ones(1000, width), f"{name}.bias": torch.ones(1000)}


def without_head(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith("decode_head.")}


SEGFORMERS: dict[str, Kind] = {
    "reference": (dict, "all", "TransKD SegFormer", "unit"),
    "reference, several GPUs": (
        lambda s: {f"module.{name}": tensor for name, tensor in s.items()},
        "all",
        "TransKD SegFormer",
        "unit",
    ),
    "reference, distilled": (distilled, "all", "TransKD SegFormer", "unit"),
    "reference, distilled on several GPUs": (
        lambda s: {f"module.{name}": tensor for name, tensor in distilled(s).items()},
        "all",
        "TransKD SegFormer",
        "unit",
    ),
    "reference, best": (best, "all", "TransKD SegFormer", "unit"),
    "this program": (lambda s: {"model": s, "epoch": 1.0, "val/miou": 70.0}, "all", "this program", None),
    "this program, last": (
        lambda s: {"model": {**distilled(s), "paths.pea.projections.0.bias": torch.ones(1)}, "run_id": "0"},
        "all",
        "this program",
        None,
    ),
    "NVlabs ImageNet": (
        lambda s: {**columns("nvlabs_imagenet")(s), **classifier(256)},
        "backbone",
        "NVlabs ImageNet MiT",
        "imagenet",
    ),
    "NVlabs": (
        lambda s: {
            "meta": {"epoch": 160, "CLASSES": ["road"]},
            "state_dict": {**columns("nvlabs")(s), "decode_head.conv_seg.weight": torch.ones(20, 128, 1, 1)},
        },
        "all",
        "NVlabs SegFormer",
        "imagenet",
    ),
    "mmsegmentation": (lambda s: {"state_dict": mmsegmentation(s)}, "backbone", "mmsegmentation SegFormer", "imagenet"),
    "mmsegmentation ImageNet": (
        lambda s: {name.removeprefix("backbone."): t for name, t in without_head(mmsegmentation(s)).items()},
        "backbone",
        "mmsegmentation SegFormer",
        "imagenet",
    ),
    "Hugging Face": (columns("hugging_face_4"), "all", "Hugging Face SegFormer", "imagenet"),
    "Hugging Face ImageNet": (
        lambda s: {**without_head(columns("hugging_face_4")(s)), **classifier(256, "classifier")},
        "backbone",
        "Hugging Face SegFormer",
        "imagenet",
    ),
    "Hugging Face encoder": (
        lambda s: {n.removeprefix("segformer."): t for n, t in without_head(columns("hugging_face_4")(s)).items()},
        "backbone",
        "Hugging Face SegFormer",
        "imagenet",
    ),
    "Hugging Face 5": (columns("hugging_face_5"), "all", "Hugging Face SegFormer (5.x)", "imagenet"),
    "Hugging Face 5 encoder": (
        lambda s: {n.removeprefix("segformer."): t for n, t in without_head(columns("hugging_face_5")(s)).items()},
        "backbone",
        "Hugging Face SegFormer (5.x)",
        "imagenet",
    ),
}


def pvtv2(column: str) -> Callable[[State], State]:
    """The encoder's entries from our names, which are timm's, to another project's; neck and head keep theirs."""

    def rename(state: State) -> State:
        timm = {f"backbone.{names[0]}": ours for ours, names in table("pvtv2_b0", "timm").items()}
        theirs = {ours: names[0] for ours, names in table("pvtv2_b0", column).items()}
        return {theirs[timm[name]]: tensor for name, tensor in state.items() if name in timm}

    return rename


def rest(state: State, *prefixes: str) -> State:
    return {name: tensor for name, tensor in state.items() if name.startswith(prefixes)}


def batch_normalised_head(state: State) -> State:
    """mmsegmentation's `FPNHead`, whose convolutions have a BatchNorm in place of a bias."""
    layers = {name: t for name, t in rest(state, "head.").items() if not name.endswith("conv.bias")}
    norms = {"head.scale_heads.0.0.bn.weight": torch.ones(128)}
    return {f"decode_{name}": tensor for name, tensor in {**layers, **norms}.items()}


PVTV2S: dict[str, Kind] = {
    "reference": (lambda s: {**pvtv2("transkd")(s), **rest(s, "neck.", "head.")}, "all", "TransKD PVTv2", "unit"),
    "reference, several GPUs": (
        lambda s: {f"module.{n}": t for n, t in {**pvtv2("transkd")(s), **rest(s, "neck.", "head.")}.items()},
        "all",
        "TransKD PVTv2",
        "unit",
    ),
    "this program": (lambda s: {"model": s, "epoch": 1.0, "val/miou": 70.0}, "all", "this program", None),
    "official ImageNet": (
        lambda s: {**pvtv2("official_imagenet")(s), **classifier(256)},
        "backbone",
        "official ImageNet PVTv2",
        "imagenet",
    ),
    "official segmentor": (
        lambda s: {"state_dict": {**pvtv2("transkd")(s), **rest(s, "neck."), **batch_normalised_head(s)}},
        "backbone",
        "PVTv2 segmentor in mmsegmentation",
        "imagenet",
    ),
    "timm": (lambda s: {**pvtv2("timm")(s), **classifier(256)}, "backbone", "timm PVTv2", "imagenet"),
}
LVTS: dict[str, Kind] = {
    "reference": (dict, "all", "TransKD LVT", "unit"),
    "this program": (lambda s: {"model": s}, "all", "this program", None),
    "official ImageNet": (
        lambda s: {**rest(s, "backbone."), "norm.weight": torch.ones(256), **classifier(256)},
        "backbone",
        "official ImageNet LVT",
        "imagenet",
    ),
    "official segmentor": (
        lambda s: {
            **{f"backbone.{n}": t for n, t in rest(s, "backbone.").items()},
            "backbone.downstream_norms.0.weight": torch.ones(64),
            **{f"decode_head.{n}": t for n, t in rest(s, "linear_").items()},
        },
        "all",
        "LVT segmentor in mmsegmentation",
        "imagenet",
    ),
}
KINDS = {
    (network, kind): row
    for network, kinds in (("segformer_b0", SEGFORMERS), ("pvtv2_b0", PVTV2S), ("lvt", LVTS))
    for kind, row in kinds.items()
}
SMALL = {"segformer_b0": "segformer_tiny", "pvtv2_b0": "pvtv2_mini", "lvt": "lvt_mini"}


def before_each(prefix: str) -> Callable[[State], State]:
    return lambda state: {f"{prefix}{name}": tensor for name, tensor in state.items()}


def fresh(name: str, like: SegModel, what: str) -> SegModel:
    """Other weights than `like`, save for its head where only the backbone is to be loaded."""
    with initialising(1, "fresh"):
        model = build_model(ModelConfig(name=name), like.channels.classes).eval()
    if what == "backbone":
        heads = {n: t for n, t in like.state_dict().items() if n.startswith(("linear_", "neck.", "head."))}
        model.load_state_dict(heads, strict=False)
    return model


def logits_are_golden(model: SegModel, fill: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    with torch.no_grad():
        logits = model.eval()(fill.uni(10007, (2, 3, 64, 128)), None, frozenset({"logits"})).logits
    assert logits is not None
    flat = logits.reshape(-1)[::7] if len(arrays["logits"].reshape(-1)) < logits.numel() else logits.reshape(-1)
    torch.testing.assert_close(flat, torch.from_numpy(arrays["logits"]).reshape(-1), atol=2e-5, rtol=0)
