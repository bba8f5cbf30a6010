"""The knowledge paths against tensors of the published implementation: blocks, whole wrappers, losses, gradients."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trainer.data.batch import Batch
from trainer.distill import DISTILLERS
from trainer.distill.csf import CrossSelectiveFusion, SelectiveKernel
from trainer.distill.fusion import StageFusion
from trainer.distill.losses import hierarchical_context
from trainer.distill.pea import PatchEmbeddingAlignment, align
from trainer.distill.pea_ea import EmbeddingAssistant
from trainer.distill.pea_gl import GlobalLocalAlignment, GlobalLocalMixer
from trainer.distill.review import AttentionBasedFusion, KnowledgeReview
from trainer.models.base import Channels, SegOutput
from trainer.models.norm import GroupedBatchNorm2d, commit, set_norm_batch

STUDENT = Channels((6, 8, 10, 16), (6, 8, 10, 16), (4, 8, 16, 32), 19)
TEACHER = Channels((8, 12, 14, 20), (8, 12, 14, 20), (4, 8, 16, 32), 19)
BLOCK = {"rtol": 0.0, "atol": 5e-6}
WRAPPER = {"rtol": 0.0, "atol": 2e-5}

# our names -> the published ones; `skfs` counts from the deepest stage, we from the shallowest
BLOCK_NAMES = (
    (r"^reduce\.", "conv1."),
    (r"^expand\.", "conv2."),
    (r"^kernel\.squeeze\.grouped\.", "fc.0."),
    (r"^kernel\.squeeze\.norm\.", "fc.1."),
    (r"^kernel\.squeeze\.single\.", "fc1.0."),
    (r"^kernel\.own\.", "fcs.0."),
    (r"^kernel\.deeper\.", "fcs.1."),
    (r"^kernel\.gates\.", "att_conv.0."),
)
MIXER_NAMES = (
    (r"query_key_value\.", "attn4.qkv."),
    (r"^(mixer\.)?out\.", "attn4.proj."),
    (r"attention_scale", "atten_weight"),
    (r"convolution_scale", "conv_weight"),
    (r"^mixer\.", ""),
)


def published(name: str) -> str:
    """The published name of one of our parameters."""
    if match := re.fullmatch(r"fusions\.(\d)\.(.*)", name):
        return f"skfs.{3 - int(match[1])}.{_renamed(match[2], BLOCK_NAMES)}"
    if match := re.fullmatch(r"projections\.(\d)\.(.*)", name):
        return f"embed{int(match[1]) + 1}_linearproject.{match[2]}"
    if match := re.fullmatch(r"assistants\.(\d)\.(patches|norm)\.(.*)", name):
        layer = {"patches": "proj", "norm": "norm"}[match[2]]
        return f"patch_embed{int(match[1]) + 1}.{layer}.{match[3]}"
    return _renamed(_renamed(name, BLOCK_NAMES), MIXER_NAMES)


def _renamed(name: str, pairs: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in pairs:
        name = re.sub(pattern, replacement, name)
    return name


def look_up(arrays: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...]) -> Tensor:
    """The published value that corresponds to our parameter `name`: some are stacked or shaped otherwise."""
    if "value_gate" in name:
        kind = name.rsplit(".", 1)[1]
        return torch.from_numpy(np.concatenate([arrays[f"conv1.{kind}"], arrays[f"conv2.{kind}"]]))
    if name in ("projection_scales", "assistant_scales"):
        first = 0 if name == "projection_scales" else 4
        return torch.from_numpy(np.concatenate([arrays[f"fuse_weights.{first + i}"] for i in range(4)]))
    return torch.from_numpy(arrays[published(name)]).reshape(shape)


def load(module: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Give every entry of the module's state its published value."""
    state = {name: look_up(arrays, name, tuple(t.shape)) for name, t in module.state_dict().items()}
    module.load_state_dict(state, strict=True)


def under(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays below a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


def check_gradient(name: str, actual: Tensor | None, expected: np.ndarray | Tensor) -> None:
    """Within 5e-5 of the largest entry, or of 1: twice the float32 noise of the recorded gradients themselves."""
    expected = torch.as_tensor(expected)
    assert actual is not None
    scale = max(1.0, expected.abs().max().item())
    torch.testing.assert_close(actual, expected, rtol=0.0, atol=5e-5 * scale, msg=lambda m: f"{name}: {m}")


def check_gradients(module: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Every parameter with a gradient has the published one."""
    gradients = {name: p for name, p in module.named_parameters() if p.grad is not None}
    assert gradients
    for name, parameter in gradients.items():
        check_gradient(name, parameter.grad, look_up(arrays, name, tuple(parameter.shape)))


def against(outputs: Sequence[Tensor], fill: Any, first: int = 0) -> Tensor:
    """The scalar whose gradients were recorded: outputs times fixed numbers, stream 20000 + first for the first."""
    return torch.stack([(o * fill.sym(20000 + first + i, tuple(o.shape))).sum() for i, o in enumerate(outputs)]).sum()


def leaves(arrays: Mapping[str, np.ndarray], kind: str, samples: int) -> list[Tensor]:
    """The inputs in/<kind>0..3 of so many samples, wanting gradients."""
    return [torch.from_numpy(arrays[f"in/{kind}{i}"][:samples]).requires_grad_() for i in range(4)]


def batch_of(samples: int, image: Tensor | None = None) -> Batch:
    image = torch.zeros(samples, 3, 64, 128) if image is None else image
    return Batch(image, torch.zeros(samples, 64, 128, dtype=torch.int64), torch.arange(samples))


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("fuse", [0, 1])
def test_csf_block(golden: Any, fill: Any, fuse: int, samples: int, mode: str) -> None:
    arrays = under(golden("csf_sk_block"), f"fuse{fuse}/")
    block = StageFusion(6, 8, 10, SelectiveKernel(8, "reference") if fuse else None)
    load(block, under(arrays, "sd/"))
    set_norm_batch(block, samples)
    block.train(mode == "train")
    expected = under(arrays, f"B{samples}/{mode}/")
    feature = torch.from_numpy(expected["x"]).requires_grad_()
    deeper = torch.from_numpy(expected["res"]).requires_grad_() if fuse else None

    out, fused = block(feature, deeper)
    against([out, fused], fill).backward()
    commit(block, lambda sums: sums)

    torch.testing.assert_close(out, torch.from_numpy(expected["out"]), **BLOCK)
    torch.testing.assert_close(fused, torch.from_numpy(expected["fused"]), **BLOCK)
    check_gradient("feature", feature.grad, expected["grad_x"])
    if deeper is not None:
        check_gradient("deeper", deeper.grad, expected["grad_res"])
    check_gradients(block, under(expected, "grad_param/"))
    with_gradient = {published(name) for name, p in block.named_parameters() if p.grad is not None}
    assert with_gradient == set(under(expected, "grad_param/"))
    state = {published(name): value for name, value in block.state_dict().items()}
    for name, value in under(expected, "after/").items():
        torch.testing.assert_close(state[name], torch.from_numpy(value), **BLOCK)


@pytest.mark.parametrize("samples", [1, 2])
def test_csf_whole(golden: Any, fill: Any, samples: int) -> None:
    arrays = golden("transkd_base_tiny")
    path = CrossSelectiveFusion(STUDENT, TEACHER, width=8, norm="reference")
    load(path, under(arrays, "sd/"))
    features = leaves(arrays, "sfeat", samples)

    projected = path.project(features)
    against(projected, fill).backward()

    expected = under(arrays, f"B{samples}/train/")
    for i in range(4):
        torch.testing.assert_close(projected[i], torch.from_numpy(expected[f"feat{i}"]), **WRAPPER)
        check_gradient(f"feature {i}", features[i].grad, expected[f"grad_sfeat{i}"])


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("fuse", [0, 1])
def test_review_block(golden: Any, fill: Any, fuse: int, mode: str) -> None:
    arrays = under(golden("reviewkd_abf"), f"fuse{fuse}/")
    block = StageFusion(6, 8, 10, AttentionBasedFusion(8) if fuse else None)
    load(block, under(arrays, "sd/"))
    block.train(mode == "train")
    expected = under(arrays, f"{mode}/")
    feature = torch.from_numpy(expected["x"]).requires_grad_()
    deeper = torch.from_numpy(expected["res"]).requires_grad_() if fuse else None

    out, fused = block(feature, deeper)
    against([out, fused], fill).backward()

    torch.testing.assert_close(out, torch.from_numpy(expected["out"]), **BLOCK)
    torch.testing.assert_close(fused, torch.from_numpy(expected["fused"]), **BLOCK)
    check_gradient("feature", feature.grad, expected["grad_x"])
    if deeper is not None:
        check_gradient("deeper", deeper.grad, expected["grad_res"])


def test_review_passes_what_it_fused_from_stage_to_stage(golden: Any) -> None:
    features = leaves(golden("transkd_base_tiny"), "sfeat", 2)
    path = KnowledgeReview(STUDENT, TEACHER, width=8).eval()
    out3, fused3 = path.fusions[3](features[3], None)
    out2, fused2 = path.fusions[2](features[2], fused3)
    out1, fused1 = path.fusions[1](features[1], fused2)
    out0, _ = path.fusions[0](features[0], fused1)
    projected = path.project(features)
    assert all(torch.equal(a, b) for a, b in zip(projected, (out0, out1, out2, out3), strict=True))


def test_csf_whole_by_running_statistics(golden: Any, fill: Any) -> None:
    arrays = golden("transkd_base_tiny")
    path = CrossSelectiveFusion(STUDENT, TEACHER, width=8, norm="reference").eval()
    load(path, under(arrays, "sd/"))

    projected = path.project(leaves(arrays, "sfeat", 2))
    against(projected, fill).backward()

    torch.testing.assert_close(projected[0], torch.from_numpy(arrays["B2/eval/feat0"]), **WRAPPER)
    check_gradients(path, under(arrays, "B2/eval/grad_param/"))


def test_pea(golden: Any, fill: Any) -> None:
    arrays = golden("transkd_base_tiny")
    path = PatchEmbeddingAlignment(STUDENT, TEACHER)
    load(path, under(arrays, "sd/"))
    embeds = leaves(arrays, "sembed", 2)

    out = path.embed(batch_of(2), SegOutput(None, (), tuple(embeds)))
    against(out, fill, first=4).backward()

    for i in range(4):
        torch.testing.assert_close(out[i], torch.from_numpy(arrays[f"B2/eval/embed{i}"]), **WRAPPER)
        check_gradient(f"embed {i}", embeds[i].grad, arrays[f"B2/eval/grad_sembed{i}"])
    check_gradients(path, under(arrays, "B2/eval/grad_param/"))


def test_global_local_mixer(golden: Any, fill: Any) -> None:
    arrays = golden("gl_mixer")
    mixer = GlobalLocalMixer(16, 4, 0.5, 0.5)
    load(mixer, under(arrays, "sd/"))
    x = torch.from_numpy(arrays["x"]).requires_grad_()

    out = mixer(x)
    against([out], fill).backward()

    torch.testing.assert_close(mixer.attend(x), torch.from_numpy(arrays["attn_out"]), **BLOCK)
    torch.testing.assert_close(mixer.convolve(x), torch.from_numpy(arrays["glu_out"]), **BLOCK)
    torch.testing.assert_close(out, torch.from_numpy(arrays["out"]), **BLOCK)
    check_gradient("x", x.grad, arrays["grad_x"])


@pytest.mark.parametrize("samples", [1, 2])
def test_pea_gl(golden: Any, fill: Any, samples: int) -> None:
    arrays = golden("transkd_gl_tiny")
    path = GlobalLocalAlignment(STUDENT, TEACHER, heads=4)
    load(path, under(arrays, "sd/"))
    embeds = leaves(golden("transkd_base_tiny"), "sembed", samples)

    out = path.embed(batch_of(samples), SegOutput(None, (), tuple(embeds)))
    against(out, fill, first=4).backward()

    expected = under(arrays, {1: "B1/train/", 2: "B2/eval/"}[samples])
    for name in (name for name in expected if name.startswith("embed")):
        torch.testing.assert_close(out[int(name[-1])], torch.from_numpy(expected[name]), **WRAPPER)
    if samples == 2:
        check_gradient("embed 3", embeds[3].grad, expected["grad_sembed3"])
        check_gradients(path, under(expected, "grad_param/"))


@pytest.mark.parametrize("samples", [1, 2])
def test_pea_ea(golden: Any, fill: Any, samples: int) -> None:
    arrays, inputs = golden("transkd_ea_tiny"), golden("transkd_base_tiny")
    path = EmbeddingAssistant(STUDENT, TEACHER)
    fusion = CrossSelectiveFusion(STUDENT, TEACHER, width=8, norm="reference").eval()
    load(path, under(arrays, "sd/"))
    load(fusion, under(arrays, "sd/"))
    embeds, features = leaves(inputs, "sembed", samples), leaves(inputs, "sfeat", samples)
    image = fill.uni(230, (2, 3, 64, 128))[:samples].clone().requires_grad_()

    out = path.embed(batch_of(samples, image), SegOutput(None, tuple(features), tuple(embeds)))
    both = [*fusion.project(features), *out]
    against(both, fill).backward()

    expected = under(arrays, {1: "B1/train/", 2: "B2/eval/"}[samples])
    for i in range(4):
        torch.testing.assert_close(out[i], torch.from_numpy(expected[f"embed{i}"]), **WRAPPER)
        if samples == 2:
            check_gradient(f"embed {i}", embeds[i].grad, expected[f"grad_sembed{i}"])
            check_gradient(f"feature {i}", features[i].grad, expected[f"grad_sfeat{i}"])
    if samples == 2:
        check_gradient("image", image.grad, expected["grad_image"])
        check_gradients(path, under(expected, "grad_param/"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_hierarchical_context(golden: Any, layout: torch.memory_format, dtype: torch.dtype) -> None:
    arrays = golden("loss_hcl")
    losses = []
    for i in range(4):
        student, teacher = (
            torch.from_numpy(arrays[f"{side}{i}"]).to(dtype).contiguous(memory_format=layout) for side in "st"
        )
        student.requires_grad_()
        losses.append(hierarchical_context(student, teacher))
        losses[-1].backward()
        assert losses[-1].item() == pytest.approx(float(arrays[f"hcl_stage{i}"]), rel=1e-5)
        expected = torch.from_numpy(arrays[f"hcl_grad{i}"]).to(dtype)
        torch.testing.assert_close(student.grad, expected, rtol=1e-4, atol=1e-9)
    exact = 1e-13 if dtype == torch.float64 else 1e-6
    total = sum(loss.item() for loss in losses)
    weighted = sum(w * loss.item() for w, loss in zip((0.1, 0.1, 0.5, 1.0), losses, strict=True))
    assert total == pytest.approx(float(arrays["hcl_total_f64"]), rel=exact)
    assert weighted == pytest.approx(float(arrays["hcl_feaw_total_f64"]), rel=exact)


@pytest.mark.parametrize("case", range(4))
def test_hierarchical_context_of_odd_sizes(golden: Any, case: int) -> None:
    arrays = golden("loss_hcl")
    loss = hierarchical_context(*(torch.from_numpy(arrays[f"odd{case}_{side}"]) for side in "st"))
    assert loss.item() == pytest.approx(float(arrays[f"odd{case}_hcl"]), rel=1e-6)


def test_csf_sums_stages_of_weighted_context(golden: Any) -> None:
    arrays = golden("transkd_base_tiny")
    features = leaves(arrays, "sfeat", 2)
    teacher = tuple(torch.full_like(torch.from_numpy(arrays[f"B2/train/feat{i}"]), 0.1 * i) for i in range(4))
    weights = (0.1, 0.1, 0.5, 1.0)
    path = CrossSelectiveFusion(STUDENT, TEACHER, width=8, norm="reference", stage_weights=weights)
    load(path, under(arrays, "sd/"))
    loss = path(batch_of(2), SegOutput(None, tuple(features), ()), SegOutput(None, teacher, ()))
    expected = sum(
        weight * hierarchical_context(torch.from_numpy(arrays[f"B2/train/feat{i}"]), teacher[i]).item()
        for i, weight in enumerate(weights)
    )
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_alignment_loss(golden: Any) -> None:
    arrays = golden("loss_embed_mse")
    students = [torch.from_numpy(arrays[f"s{i}"]).requires_grad_() for i in range(4)]
    teachers = [torch.from_numpy(arrays[f"t{i}"]) for i in range(4)]
    loss = align(students, teachers, arrays["weights"].tolist())
    loss.backward()
    assert loss.item() == pytest.approx(float(arrays["total"]), rel=1e-5)
    for i, student in enumerate(students):
        single = align([student.detach()], [teachers[i]], [1.0])
        assert single.item() == pytest.approx(float(arrays[f"mse{i}"]), rel=1e-5)
        torch.testing.assert_close(student.grad, torch.from_numpy(arrays[f"grad{i}"]), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        ("csf", {"norm": "reference"}, 650_304),
        ("review", {}, 625_926),
        ("pea", {}, 193_536),
        ("pea_gl", {}, 849_666),
        ("pea_ea", {}, 1_164_488),
    ],
)
def test_published_parameter_counts(name: str, options: dict[str, Any], parameters: int) -> None:
    b0 = Channels((32, 64, 160, 256), (32, 64, 160, 256), (4, 8, 16, 32), 20)
    b2 = Channels((64, 128, 320, 512), (64, 128, 320, 512), (4, 8, 16, 32), 20)
    with torch.device("meta"):
        path = DISTILLERS[name](b0, b2, **options)
    assert sum(p.numel() for p in path.parameters()) == parameters


@pytest.mark.parametrize(
    "path", [CrossSelectiveFusion(STUDENT, TEACHER, norm="reference"), KnowledgeReview(STUDENT, TEACHER)]
)
def test_every_norm_of_a_path_is_grouped(path: nn.Module) -> None:
    norms = [m for m in path.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(isinstance(norm, GroupedBatchNorm2d) for norm in norms)
