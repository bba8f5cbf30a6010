"""Every naming of public weights: golden weights under the names of others give the golden output of the network.

The tables of names in tests/golden were written from the projects that use them, not from ours; mmsegmentation's names
(`mmseg/models/backbones/mit.py`) are spelled out below.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from trainer.config import ModelConfig, UserError
from trainer.files.file_digest import file_digest
from trainer.models import SegModel, build_model
from trainer.rng import initialising
from trainer.training.networks import load_network
from trainer.weights import load_weights

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


@pytest.fixture(scope="module")
def filled() -> dict[str, SegModel]:
    return {}


@pytest.fixture
def source(filled: dict[str, SegModel], fill: SimpleNamespace) -> Callable[[str], SegModel]:
    """source("segformer_b0") -> the network with the golden weights; treat it as read-only."""

    def make(name: str) -> SegModel:
        if name not in filled:
            filled[name] = fill.model(build_model(ModelConfig(name=name), 20)).eval()
        return filled[name]

    return make


def fresh(name: str, like: SegModel, what: str) -> SegModel:
    """Other weights than `like`, save for its head where only the backbone is to be loaded."""
    with initialising(1, "fresh"):
        model = build_model(ModelConfig(name=name), like.channels.classes).eval()
    if what == "backbone":
        heads = {n: t for n, t in like.state_dict().items() if n.startswith(("linear_", "neck.", "head."))}
        model.load_state_dict(heads, strict=False)
    return model


def save(content: Any, folder: Path) -> list[Path]:
    """The file, and where the format can hold it, a safetensors file: neither name tells which is which."""
    torch.save(content, folder / "one.bin")
    if not all(isinstance(value, Tensor) for value in content.values()):
        return [folder / "one.bin"]
    safetensors.torch.save_file({name: tensor.clone() for name, tensor in content.items()}, folder / "other.bin")
    return [folder / "one.bin", folder / "other.bin"]


def logits_are_golden(model: SegModel, fill: SimpleNamespace, arrays: dict[str, np.ndarray]) -> None:
    with torch.no_grad():
        logits = model.eval()(fill.uni(10007, (2, 3, 64, 128)), None, frozenset({"logits"})).logits
    assert logits is not None
    flat = logits.reshape(-1)[::7] if len(arrays["logits"].reshape(-1)) < logits.numel() else logits.reshape(-1)
    torch.testing.assert_close(flat, torch.from_numpy(arrays["logits"]).reshape(-1), atol=2e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(("network", "kind"), KINDS)
def test_weights_under_any_name(network, kind, source, golden, fill, tmp_path):
    write, what, title, normalize = KINDS[network, kind]
    original = source(network)
    state = original.state_dict()
    for path in save(write(state), tmp_path):
        model = fresh(network, original, what)
        coverage = load_weights(model, path, what=what)
        assert coverage.complete
        assert (coverage.format, coverage.normalize) == (title, normalize)
        heads = rest(state, "linear_", "neck.", "head.") if what == "backbone" else {}
        assert set(coverage.loaded) == set(state) - set(heads)
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    logits_are_golden(model, fill, golden(network))


def before_each(prefix: str) -> Callable[[State], State]:
    return lambda state: {f"{prefix}{name}": tensor for name, tensor in state.items()}


WRAPPERS: dict[str, Callable[[State], Any]] = {
    "any prefix": before_each("net.inner."),
    "torch.compile": before_each("_orig_mod."),
    "torch.compile inside DDP": before_each("module._orig_mod."),
    "Lightning": lambda s: {"state_dict": {**before_each("model.")(s), "criterion.weight": torch.ones(3)}, "epoch": 3},
    "mmrazor": lambda s: {"state_dict": {**before_each("architecture.")(s), **before_each("teacher.")(zeros(s))}},
    "distilled": lambda s: {
        **before_each("architecture.student.")(s),
        **before_each("architecture.teacher.")(zeros(s)),
    },
    "model_state_dict": lambda s: {
        "model_state_dict": s,
        "optimizer_state_dict": {"state": {0: {"step": torch.ones(1)}}},
    },
    "timm": lambda s: {"state_dict": zeros(s), "state_dict_ema": s, "arch": "x", "args": argparse.Namespace(lr=0.1)},
    "DeepSpeed": lambda s: {"module": s, "global_steps": 7},
    "torch.optim.swa_utils": lambda s: {"n_averaged": torch.tensor(5), **before_each("module.")(s)},
    "thop": lambda s: {**s, **{f"{n.rpartition('.')[0]}.total_ops": torch.ones(1, dtype=torch.float64) for n in s}},
    "YOLO": lambda s: {"model": None, "ema": {"module": s}, "date": datetime.datetime(2024, 1, 1)},
    "FSDP": lambda s: {n.replace(".0.", ".0._fsdp_wrapped_module.", 1): t for n, t in s.items()},
    "mmengine": lambda s: {
        "meta": {"mIoU": np.float64(0.7), "seed": np.int64(1), "iou": np.arange(3.0)},
        "state_dict": s,
    },
    "a path": lambda s: {"state_dict": s, "cfg": {"out": Path("x")}},
}


def zeros(state: State) -> State:
    return {name: torch.zeros_like(tensor) for name, tensor in state.items()}


@pytest.mark.slow
@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("network", SMALL)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_weights_in_any_wrapper(wrapper, network, zipped, source, tmp_path):
    original = source(SMALL[network])
    content = WRAPPERS[wrapper](dict(original.state_dict()))
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    model = fresh(SMALL[network], original, "all")
    assert load_weights(model, tmp_path / "w.pth", what="all").complete
    assert all(torch.equal(tensor, original.state_dict()[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(("network", "kind"), KINDS)
def test_any_naming_in_a_wrapper(network, kind, source, tmp_path):
    write, what, title, _ = KINDS[network, kind]
    original = source(SMALL[network])
    torch.save(
        {"ema_state_dict": before_each("module.net.")(tensors(write(original.state_dict())))}, tmp_path / "w.pth"
    )
    model = fresh(SMALL[network], original, what)
    coverage = load_weights(model, tmp_path / "w.pth", what=what)
    assert coverage.complete
    if title != "this program":
        assert coverage.format == f"{title} (averaged weights)"
    assert all(torch.equal(tensor, original.state_dict()[name]) for name, tensor in model.state_dict().items())


def tensors(content: dict[str, Any]) -> State:
    return next((content[key] for key in ("model", "state_dict") if key in content), content)


def test_two_networks_in_a_file_are_refused(source, tmp_path):
    state = source("segformer_tiny").state_dict()
    torch.save({**before_each("first.")(state), **before_each("second.")(state)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"holds two networks, 'first\.' and 'second\.'; save the one"):
        load_weights(source("segformer_tiny"), tmp_path / "w.pth", what="all")


@pytest.mark.parametrize("what", ["all", "backbone"])
def test_batchnorms_counters_may_lack(what, source, tmp_path):
    original = source("segformer_tiny")
    state = {n: t for n, t in original.state_dict().items() if not n.endswith("num_batches_tracked")}
    for name, content in (("plain", state), ("ours", {"model": state})):
        torch.save(content, tmp_path / f"{name}.pth")
        model = fresh("segformer_tiny", original, what)
        coverage = load_weights(model, tmp_path / f"{name}.pth", what=what)
        assert coverage.complete
        assert (coverage.format == "this program") == (name == "ours")
        assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in state.items())


def test_timms_features_only(source, tmp_path):
    import timm

    theirs = timm.create_model("pvt_v2_b0", features_only=True)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    model = fresh("pvtv2_b0", source("pvtv2_b0"), "backbone")
    coverage = load_weights(model, tmp_path / "w.pth", what="backbone")
    assert (coverage.format, coverage.normalize) == ("timm PVTv2 with features_only", "imagenet")
    ours = model.state_dict()
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(tensor, ours[f"backbone.{name.replace('stages_', 'stages.')}"])


def hugging_face_folder(state: State, folder: Path, shards: int, kind: str = "model.safetensors") -> Path:
    """A folder as `save_pretrained` writes it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    write = safetensors.torch.save_file if kind.endswith("safetensors") else torch.save
    if shards == 1:
        write({name: tensor.clone() for name, tensor in state.items()}, folder / kind)
        return folder
    stem, suffix = kind.split(".")
    files = {name: f"{stem}-{i % shards + 1:05}-of-{shards:05}.{suffix}" for i, name in enumerate(state)}
    for file in set(files.values()):
        write({name: tensor.clone() for name, tensor in state.items() if files[name] == file}, folder / file)
    (folder / f"{kind}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return folder


@pytest.mark.parametrize("kind", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("shards", [1, 3])
def test_a_folder_of_hugging_face(shards, kind, source, tmp_path):
    original = source("segformer_tiny")
    theirs = columns("hugging_face_4")(original.state_dict())
    cache = tmp_path / "models--nvidia--mit"
    folder = hugging_face_folder(theirs, cache / "snapshots" / "0123", shards, kind)
    index = [folder / f"{kind}.index.json"] if shards > 1 else []
    for path in (folder, cache, *index):
        model = load_network(ModelConfig(name="segformer_tiny"), path, 20)
        assert all(torch.equal(tensor, original.state_dict()[name]) for name, tensor in model.state_dict().items())
        assert file_digest(path) == file_digest(folder)
    before = file_digest(folder)
    shard = sorted(
        path for path in folder.iterdir() if path.name.startswith(kind.split(".")[0]) and path.suffix != ".json"
    )[0]
    if shards == 1:
        assert before == file_digest(shard)
        return
    with pytest.raises(UserError, match=r"does not fit the network: .* missing"):
        load_network(ModelConfig(name="segformer_tiny"), shard, 20)
    shard.unlink()
    for use in (file_digest, lambda path: load_network(ModelConfig(name="segformer_tiny"), path, 20)):
        with pytest.raises(UserError, match=f"names {shard.name}, which is not beside it; download all 3 shards"):
            use(folder)


@pytest.mark.parametrize(
    "index", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": "../x.bin"}}', "[" * 100_000]
)
def test_a_list_of_shards_that_is_none(index, tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(UserError, match="is no list of shards"):
        file_digest(tmp_path)


def test_a_folder_without_weights(source, tmp_path):
    with pytest.raises(UserError, match=r"is a folder without model.safetensors or pytorch_model.bin; give a file"):
        load_weights(source("segformer_tiny"), tmp_path, what="all")


@pytest.mark.parametrize("what", ["all", "backbone"])
def test_another_familys_weights_are_called_by_their_name(what, source, tmp_path):
    torch.save(source("lvt_mini").state_dict(), tmp_path / "lvt.pth")
    with pytest.raises(UserError, match=r"holds weights of a LVT \(TransKD LVT\), but the network is a SegFormer"):
        load_weights(source("segformer_tiny"), tmp_path / "lvt.pth", what=what)


def test_mmsegmentations_own_head_is_another_function(source, tmp_path):
    torch.save(mmsegmentation(source("segformer_tiny").state_dict()), tmp_path / "w.pth")
    with pytest.raises(
        UserError, match=r"head normalises each projection.*only the backbone of such files can be used$"
    ) as e:
        load_weights(source("segformer_tiny"), tmp_path / "w.pth", what="all")
    assert "decode_head.convs.0.conv.weight" in str(e.value)


def test_twenty_outputs_follow_the_file(source, golden, fill, tmp_path):
    """The reference's void class: a 20th output is kept for data of 19 classes, and 19 stay 19."""
    twenty = source("segformer_b0").state_dict()
    torch.save(twenty, tmp_path / "20.pth")
    model = load_network(ModelConfig(name="segformer_b0"), tmp_path / "20.pth", 19)
    assert model.channels.classes == 20
    logits_are_golden(model, fill, golden("segformer_b0"))
    torch.save({n: t[:19] if n.startswith("linear_pred") else t for n, t in twenty.items()}, tmp_path / "19.pth")
    assert load_network(ModelConfig(name="segformer_b0"), tmp_path / "19.pth", 19).channels.classes == 19
    with pytest.raises(UserError, match=r"20\.pth has 20 outputs, but the data has 11 classes"):
        load_network(ModelConfig(name="segformer_b0"), tmp_path / "20.pth", 11)
