"""The contract of every entry of MODELS, and what each family promises beyond it."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trainer import rng
from trainer.config import ModelConfig, UserError
from trainer.contract.models import CHECKS, CLASSES, KEYS, SIZES, Network, image_like, works_on_the_meta_device
from trainer.measure.complexity import paper_macs, parameters
from trainer.models import MODELS, build_model
from trainer.models.layers import to_map, to_tokens
from trainer.models.lvt_attention import ConvolutionalSelfAttention
from trainer.models.masks import ChannelDropout, MaskDraw, StochasticDepth

SMALL = [
    "segformer_tiny",
    "segformer_mini",
    "segformer_b0",
    "segformer_b1",
    "pvtv2_mini",
    "pvtv2_b0",
    "lvt_mini",
    "lvt",
]
"""Networks of less than 15 million parameters: named here, for to build all of them takes seconds."""
QUICK = {"segformer_tiny", "segformer_mini", "segformer_b0", "pvtv2_mini", "lvt_mini"}
"""What the fast tests do with; each family is among them."""


def slow(names):
    """The names, marked where they are not of the quick networks."""
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


def build(name, **rates):
    return Network(name).build(**rates)


def on_meta(name):
    return Network(name).on_meta()


@pytest.mark.slow
def test_the_small_networks_are_all_of_them():
    assert [name for name in MODELS if parameters(on_meta(name)) < 15e6] == SMALL


@pytest.mark.parametrize("name", slow(SMALL))
@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_every_network_keeps_the_contract(check, name):
    check(Network(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MODELS if name not in SMALL])
def test_large_networks_have_the_published_shapes(name):
    works_on_the_meta_device(Network(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", slow(MODELS))
def test_parts_not_asked_for_are_not_computed(name):
    model = on_meta(name)
    image = image_like(model, (64, 96))
    parts = [frozenset({part}) for part in ("embeds", "features", "logits")]
    embeds, features, logits = (paper_macs(model, lambda needs=needs: model(image, None, needs)) for needs in parts)
    assert embeds < features < logits


@pytest.mark.parametrize("name", slow(SMALL))
@torch.no_grad()
def test_other_keys_drop_other_parts(name):
    model = build(name, drop_path=0.5, dropout=0.5).train()
    image = image_like(model, (32, 64), n=4)
    one, other = model(image, KEYS), model(image, KEYS + 1)
    assert not torch.allclose(one.features[3], other.features[3])
    assert not torch.allclose(one.logits, other.logits)


@pytest.mark.parametrize("rates", [{"drop_path": 0.1, "dropout": 0.0}, {"drop_path": 0.0, "dropout": 0.1}])
@pytest.mark.parametrize("name", slow(SMALL))
def test_training_with_drops_needs_keys(name, rates):
    model = build(name, **rates).train()
    with pytest.raises(ValueError, match="needs the batch's keys"):
        model(image_like(model, (32, 64)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["segformer_tiny", "pvtv2_mini", "lvt_mini"])
@pytest.mark.parametrize("training", [True, False])
def test_compiles_to_one_graph(training, name):
    model = build(name).train(training)
    image = image_like(model, (32, 64), n=4)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(image, KEYS).logits, model(image, KEYS).logits, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "blocks"), [("segformer_tiny", 5), ("pvtv2_mini", 4), ("lvt_mini", 4)])
def test_build_model_takes_its_rates_from_the_config(name, blocks):
    model = build_model(ModelConfig(name=name, drop_path=0.4, dropout=0.3), CLASSES)
    rates = [m.rate for m in model.modules() if isinstance(m, StochasticDepth)]
    assert rates == pytest.approx([0.4 * i / (blocks - 1) for i in range(blocks) for _ in range(2)])
    assert [m.rate for m in model.modules() if isinstance(m, ChannelDropout)] == [0.3]
    assert all(m.p == 0 for m in model.modules() if isinstance(m, nn.Dropout))  # timm's, which know no keys


def test_unknown_model_gets_a_hint():
    with pytest.raises(UserError, match="unknown model 'segformer_b9'; did you mean 'segformer_b"):
        build_model(ModelConfig(name="segformer_b9"), CLASSES)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("segformer_b0", 3_719_284),
        ("segformer_b1", 13_682_388),
        ("segformer_b2", 27_362_004),
        ("pvtv2_b0", 7_527_668),
        ("pvtv2_b2", 29_098_836),
        ("lvt", 3_837_176),
    ],
)
def test_parameters_of_the_published_networks(name, count):
    with torch.device("meta"):
        assert parameters(MODELS[name](20)) == count


@pytest.mark.parametrize(("name", "blocks"), [("segformer_b2", 16), ("pvtv2_b2", 16), ("lvt", 8)])
def test_names_of_masks_are_distinct(name, blocks):
    names = [m.name for m in on_meta(name).modules() if isinstance(m, StochasticDepth | ChannelDropout)]
    assert len(names) == len(set(names)) == 2 * blocks + 1


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
def test_folded_head_is_the_published_head(size):
    """Project, upsample, concatenate deepest first, convolve: written out here, in float64."""
    model = build("segformer_mini").double().eval()
    bn = model.linear_fuse.bn
    bn.running_mean.uniform_(-1, 1, generator=torch.Generator().manual_seed(1))
    out = model(image_like(model, size).double())
    stages = []
    for i in (4, 3, 2, 1):
        feature = out.features[i - 1]
        projected = getattr(model, f"linear_c{i}").proj(feature.flatten(2).transpose(1, 2))
        projected = projected.transpose(1, 2).unflatten(2, feature.shape[2:])
        stages.append(F.interpolate(projected, size=out.features[0].shape[2:], mode="bilinear", align_corners=False))
    published = model.linear_pred(bn(model.linear_fuse.conv(torch.cat(stages, 1))).relu())
    torch.testing.assert_close(out.logits, published, rtol=1e-10, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("size", [(8, 12), (9, 13), (1, 2)])
def test_convolutional_attention_is_the_published_one(size):
    """Unfold, a linear map a place, attend, fold: written out here, in float64. LVT, section 3.1."""
    layer = ConvolutionalSelfAttention(8, 2).double()
    tokens = torch.rand(2, size[0] * size[1], 8, generator=torch.Generator().manual_seed(0)).double()
    image = to_map(tokens, size)
    places = F.unfold(image, 3, padding=1, stride=2).unflatten(1, (8, 9))  # (N, C, 9, M)
    values = torch.einsum("ncpm,pdc->nmpd", places, layer.weight.weight.view(9, 8, 8)).unflatten(3, (2, 4))
    means = F.avg_pool2d(image, 2, ceil_mode=True).flatten(2).transpose(1, 2)
    weights = (layer.attn(means).unflatten(2, (2, 9, 9)) / 4**0.5).softmax(-1)
    mixed = torch.einsum("nmhpq,nmqhc->nhcpm", weights, values).flatten(1, 3)
    published = layer.proj(to_tokens(F.fold(mixed, size, 3, padding=1, stride=2)))
    torch.testing.assert_close(layer(tokens, size), published, rtol=1e-10, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
def test_semantic_head_sums_before_its_last_upsampling(size):
    """One upsampling to stride 4 for each deeper level, then the sum: written out here, in float64."""
    model = build("pvtv2_mini").double().eval()
    levels = model.neck(model(image_like(model, size).double()).features)
    total = 0
    for i, branch in enumerate(model.head.scale_heads):
        x = levels[i]
        for j, layer in enumerate(branch.children()):
            x = F.relu(layer(x))
            if i:
                finer = levels[i - j - 1].shape[2:]
                x = F.interpolate(x, size=finer, mode="bilinear", align_corners=False)
        total = total + x
    logits = model(image_like(model, size).double()).logits
    torch.testing.assert_close(logits, model.head.conv_seg(total), rtol=1e-10, atol=1e-12)


@torch.no_grad()
def test_head_is_folded_in_full_precision_under_autocast():
    model = build("segformer_mini").eval()
    projections = [getattr(model, f"linear_c{i}").proj for i in (1, 2, 3, 4)]
    exact, bias = model.linear_fuse._fold(projections)
    with torch.autocast("cpu", torch.bfloat16):
        under, bias_under = model.linear_fuse._fold(projections)
    assert all(torch.equal(a, b) for a, b in zip([*exact, bias], [*under, bias_under], strict=True))


@torch.no_grad()
def test_a_bf16_network_runs():
    model = build("segformer_mini").eval()
    image = image_like(model, (64, 96))
    exact = model(image).logits
    rounded = model.to(torch.bfloat16)(image.bfloat16()).logits
    assert rounded.dtype == torch.bfloat16
    assert (rounded - exact).norm() < 0.1 * exact.norm()


def test_tokens_and_maps_share_memory():
    tokens = torch.rand(2, 15, 4)
    image = to_map(tokens, (3, 5))
    assert image.shape == (2, 4, 3, 5)
    assert image.data_ptr() == to_tokens(image).data_ptr() == tokens.data_ptr()
    assert torch.equal(image[1, :, 2, 3], tokens[1, 2 * 5 + 3])


@pytest.mark.parametrize("name", ["segformer_mini", "pvtv2_mini", "lvt_mini"])
@torch.no_grad()
def test_features_stay_channels_last(name):
    model = build(name).eval()
    for feature in model(image_like(model, (64, 96))).features:
        assert feature.is_contiguous(memory_format=torch.channels_last)


def test_initialisation_is_segformers():
    state = build("segformer_b0").state_dict()
    assert state["block3.0.mlp.fc1.weight"].std().item() == pytest.approx(0.02, rel=0.02)
    assert state["block4.0.mlp.dwconv.dwconv.weight"].std().item() == pytest.approx(math.sqrt(2 / 9), rel=0.03)
    assert state["patch_embed4.proj.weight"].std().item() == pytest.approx(math.sqrt(2 / (9 * 256)), rel=0.02)
    assert state["linear_fuse.conv.weight"].std().item() == pytest.approx(math.sqrt(2 / 256), rel=0.02)
    assert not state["block3.0.attn.q.bias"].any()


def test_initialisation_of_the_other_families_is_the_references():
    state = build("lvt").state_dict()
    assert state["backbone.2.1.0.attn.q.weight"].std().item() == pytest.approx(0.02, rel=0.03)
    assert state["linear_c3.proj.weight"].std().item() == pytest.approx(0.02, rel=0.03)
    assert state["backbone.0.1.0.attn.weight.weight"].std().item() == pytest.approx(math.sqrt(2 / 576), rel=0.03)
    assert state["backbone.3.1.0.attn.ds.weight"].abs().max().item() == pytest.approx(math.sqrt(6 / 9), rel=0.02)
    assert state["backbone.3.1.0.mlp.fc1.weight"].abs().max().item() == pytest.approx(1 / 16, rel=0.02)
    state = build("pvtv2_b0").state_dict()
    assert state["backbone.stages.2.blocks.0.mlp.fc1.weight"].std().item() == pytest.approx(0.02, rel=0.03)
    assert state["neck.fpn_convs.0.conv.weight"].std().item() == pytest.approx(math.sqrt(2 / (9 * 256)), rel=0.02)
    assert not state["head.scale_heads.3.4.conv.bias"].any()


def masked(module, x, keys):
    return module.train()(x, MaskDraw([module])(keys))


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_masks_drawn_together_are_those_that_a_module_draws_alone(name, dtype):
    """Module for module by the formula, in the dtype of the branch: 0 or 1 / (1 - rate)."""
    drawn = [m for m in on_meta(name).modules() if isinstance(m, StochasticDepth | ChannelDropout) and m.rate]
    draw = MaskDraw(drawn)
    masks = (draw.double() if dtype == torch.float64 else draw)(KEYS)
    assert list(masks) == [module.name for module in drawn]
    for module in drawn:
        lanes = torch.arange(module.width)
        numbers = rng.uniform(KEYS, torch.full_like(lanes, rng.salt(module.name)), lanes)
        expected = (numbers >= module.rate).to(dtype) / (1.0 - module.rate)
        assert torch.equal(masks[module.name].to(dtype)[:, :, 0], expected)


def test_masks_of_other_names_are_other_masks():
    keys = torch.from_numpy(rng.sample_keys(0, 0, torch.arange(200).numpy()))
    x = torch.ones(200, 4, 1, 1)
    one, same, other = (masked(ChannelDropout(name, 0.5, 4), x, keys) for name in ("a", "a", "b"))
    assert torch.equal(one, same)
    assert (one != other).float().mean().item() == pytest.approx(0.5, abs=0.1)


def test_masks_keep_their_share_and_the_mean():
    keys = torch.from_numpy(rng.sample_keys(0, 0, torch.arange(4000).numpy()))
    kept = masked(StochasticDepth("block1.0.attn", 0.25), torch.ones(4000, 2, 3), keys)
    assert torch.equal(kept, kept[:, :1, :1].expand_as(kept))  # whole samples
    assert kept[:, 0, 0].ne(0).float().mean().item() == pytest.approx(0.75, abs=0.03)
    assert kept.max().item() == pytest.approx(1 / 0.75)
    channels = masked(ChannelDropout("dropout", 0.25, 8), torch.ones(4000, 8, 2, 2), keys)
    assert torch.equal(channels, channels[:, :, :1, :1].expand_as(channels))
    assert channels.mean().item() == pytest.approx(1.0, abs=0.02)
    assert (channels.amax((1, 2, 3)) != channels.amin((1, 2, 3))).float().mean() > 0.8  # channels drop apart
