"""The networks against tensors of the reference implementation: parts, LayerNorm eps, and whole networks."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trainer.models import MODELS
from trainer.models.layers import Attention, Block, DepthwiseConv, MixFFN, PatchEmbed
from trainer.models.norm import commit

SIZE = (8, 16)
PARTS = {
    # (file, tag): module, its input's shape, the input's stream, and whether it is an image in [0, 1)
    ("mit_attention", "sr1"): (lambda: Attention(16, 2, 1), (2, 128, 16), 700, False),
    ("mit_attention", "sr2"): (lambda: Attention(16, 2, 2), (2, 128, 16), 700, False),
    ("mit_attention", "sr8"): (lambda: Attention(16, 1, 8), (2, 128, 16), 700, False),
    ("mit_mixffn", "mlp"): (lambda: MixFFN(16), (2, 128, 16), 700, False),
    ("mit_mixffn", "dwconv"): (lambda: DepthwiseConv(16), (2, 128, 16), 700, False),
    ("mit_block", "sr2"): (lambda: Block("block", 16, 2, 2, 0.0), (2, 128, 16), 700, False),
    ("mit_patch_embed", "p7s4"): (lambda: PatchEmbed(3, 16, 7, 4), (2, 3, 32, 64), 710, True),
    ("mit_patch_embed", "p3s2"): (lambda: PatchEmbed(8, 16, 3, 2), (2, 8, 8, 16), 711, False),
    ("mit_patch_embed", "p3s2_odd"): (lambda: PatchEmbed(8, 16, 3, 2), (2, 8, 9, 15), 712, False),
}
NETWORKS = ["segformer_tiny", "segformer_b0", "segformer_b2", "pvtv2_b0", "lvt"]
FINE_NORMS = {
    "segformer": r"norm\d|block.*\.norm[12]",
    "pvtv2": r"backbone\.stages\.\d\.(norm|blocks\.\d+\.norm[12])",
    "lvt": "none",
}
"""Names of the norms with eps 1e-6, by family; all others have 1e-5."""


def official(name: str) -> str:
    """The reference's name of an entry: ours, but for timm's encoder of PVTv2."""
    for pattern, change in (
        (r"backbone\.patch_embed\.", lambda found: "backbone.patch_embed1."),
        (r"backbone\.stages\.(\d)\.downsample\.", lambda found: f"backbone.patch_embed{int(found[1]) + 1}."),
        (r"backbone\.stages\.(\d)\.blocks\.", lambda found: f"backbone.block{int(found[1]) + 1}."),
        (r"backbone\.stages\.(\d)\.norm\.", lambda found: f"backbone.norm{int(found[1]) + 1}."),
    ):
        name, changed = re.subn(pattern, change, name)
        if changed:
            return name.replace("mlp.dwconv.", "mlp.dwconv.dwconv.")
    return name


def call(module: nn.Module, x: Tensor) -> Tensor:
    if isinstance(module, PatchEmbed):
        return module(x)[0]
    return module(x, SIZE, None) if isinstance(module, Block) else module(x, SIZE)


def close(actual: Tensor, stored: np.ndarray, atol: float, rtol: float = 0.0) -> None:
    """Arrays of more than 4096 numbers are stored as every seventh of them."""
    flat = actual.detach().reshape(-1)
    flat = flat[::7] if len(flat) > 4096 else flat
    torch.testing.assert_close(flat, torch.from_numpy(stored).reshape(-1), atol=atol, rtol=rtol)


def close_part(actual: Tensor, stored: np.ndarray) -> None:
    """A whole map, or what is stored instead: mean, deviation, extremes, sum of magnitudes, first eleven numbers."""
    if stored.shape != (16,):
        close(actual, stored, 2e-5)
        return
    x = actual.detach().double()
    summary = [x.mean(), x.std(), x.min(), x.max(), x.abs().sum(), *x.reshape(-1)[:11]]
    close(torch.stack(summary).float(), stored, 2e-5, 1e-6)


@pytest.mark.parametrize(("file", "tag"), PARTS)
def test_part_and_its_gradients(file, tag, golden, fill):
    build, shape, stream, image = PARTS[file, tag]
    arrays = golden(file)
    module = fill.model(build())
    x = (fill.uni if image else fill.sym)(stream, shape).requires_grad_()
    out = call(module, x)
    close(out, arrays[f"{tag}/out0"], 5e-6)
    (out * fill.sym(20000, tuple(out.shape))).sum().backward()
    close(x.grad, arrays[f"{tag}/grad_in0"], 5e-6, 1e-5)
    for name, parameter in module.named_parameters():
        close(parameter.grad, arrays[f"{tag}/grad_param/{name}"], 2e-5, 1e-5)


@pytest.mark.parametrize(
    ("tag", "build"),
    [
        ("block", lambda: Block("block", 16, 2, 1, 0.0)),
        ("patch_embed", lambda: PatchEmbed(8, 16, 3, 2)),
        ("attention_sr2", lambda: Attention(16, 2, 2)),
    ],
)
def test_layer_norm_eps(tag, build, golden):
    """Inputs of tiny variance: a wrong eps errs by 0.1 or more here, and by nothing visible anywhere else."""
    arrays = golden("ln_eps")
    module = build()
    prefix = f"{tag}/sd/"
    module.load_state_dict({k.removeprefix(prefix): torch.from_numpy(v) for k, v in arrays.items() if prefix in k})
    close(call(module, torch.from_numpy(arrays[f"{tag}/in"])), arrays[f"{tag}/out"], 5e-6)


@pytest.mark.parametrize(
    "name", [name if name in NETWORKS else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
)
def test_norms_of_a_whole_network_have_the_eps_of_the_reference(name):
    fine = FINE_NORMS[name.split("_")[0]]
    with torch.device("meta"):
        model = MODELS[name](20)
    norms = {path: module for path, module in model.named_modules() if isinstance(module, nn.LayerNorm)}
    assert len(norms) >= 4
    for path, norm in norms.items():
        assert norm.eps == (1e-6 if re.fullmatch(fine, path) else 1e-5), path


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_whole_network(name, golden, fill):
    arrays = golden(name)
    model = fill.model(MODELS[name](20)).eval()
    assert [official(path) for path in model.state_dict()] == arrays["names"].tolist()
    image = fill.uni(10007, (2, 3, 64, 128)).requires_grad_()
    out = model(image)
    close(out.logits, arrays["logits"], 2e-5)
    for i in range(4):
        close_part(out.features[i], arrays[f"feat{i}"])
        close_part(out.embeds[i], arrays[f"embed{i}"])

    parts = [*out.features, out.logits, *out.embeds]
    loss = sum((part * fill.sym(20000 + j, tuple(part.shape))).sum() for j, part in enumerate(parts))
    loss.backward()
    close(image.grad, arrays["grad_image"], 1e-3 * float(np.abs(arrays["grad_image"]).max()))
    if "grad_param_l2" in arrays:
        norms = torch.stack([parameter.grad.norm() for parameter in model.parameters()])
        close(norms, arrays["grad_param_l2"], 1e-4, 1e-3)
    else:
        for path, parameter in model.named_parameters():
            close(parameter.grad, arrays[f"grad_param/{path}"], 1e-4, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_training_without_drops(name, golden, fill):
    """Batch statistics in the head, and one step's update of its running statistics; PVTv2's head has none."""
    arrays = golden(name)
    model = fill.model(MODELS[name](20, drop_path=0.0, dropout=0.0)).train()
    with torch.no_grad():
        out = model(fill.uni(10007, (2, 3, 64, 128)), needs=frozenset({"logits"}))
    commit(model, lambda sums: sums)
    close(out.logits, arrays["train_nodrop/logits"], 2e-5)
    buffers = [path for path, _ in model.named_buffers() if "running" in path]
    assert len(buffers) == (0 if name == "pvtv2_b0" else 2)
    for path in buffers:
        close(model.get_buffer(path), arrays[f"train_nodrop/after/{path}"], 2e-6)
