"""timm/NAME: backbones of timm keep the contract of ours; what cannot be one is told in one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import timm
import torch

from trainer.config import ModelConfig, Term, UserError
from trainer.contract.models import CHECKS, KEYS, Network, image_like
from trainer.distill import build_distillers
from trainer.models import build_model
from trainer.models.base import Channels
from trainer.models.norm import GroupedBatchNorm1d, set_norm_batch
from trainer.weights import load_weights

NETWORKS = [
    pytest.param("timm/mobilenetv3_small_050"),  # BatchNorm with an activation in it
    pytest.param("timm/convnext_atto", marks=pytest.mark.slow),  # LayerNorm, sizes rounded down
    pytest.param("timm/swin_tiny_patch4_window7_224", marks=pytest.mark.slow),  # maps with channels last, one size
    pytest.param("timm/hrnet_w18_small", marks=pytest.mark.slow),  # without stochastic depth
]


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_backbones_of_timm_keep_the_contract(check, name):
    check(Network(name))


@pytest.mark.slow
@torch.no_grad()
def test_the_stages_are_timms():
    """At a multiple of 32 and in evaluation, the features are those of timm's extractor with the same weights."""
    model = Network("timm/resnet18").build().eval()
    reference = timm.create_model("resnet18", features_only=True, out_indices=(1, 2, 3, 4)).eval()
    reference.load_state_dict(model.backbone.state_dict(), strict=False)
    image = image_like(model, (64, 96))
    for ours, theirs in zip(model(image).features, reference(image), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_batch_norms_over_sequences_are_ours_too():
    with torch.device("meta"):
        model = build_model(ModelConfig(name="timm/nextvit_small"), 3)
    assert any(isinstance(module, GroupedBatchNorm1d) for module in model.modules())
    set_norm_batch(model, 2)  # refuses any of torch's
    assert model.train()(torch.empty(4, 3, 64, 64, device="meta"), KEYS.to("meta")).logits.shape == (4, 3, 16, 16)


@pytest.mark.parametrize("name", ["timm/inception_v3", "timm/efficientformerv2_s0"])
@pytest.mark.parametrize("device", ["meta", pytest.param("cpu", marks=pytest.mark.slow)])
def test_a_size_that_a_backbone_does_not_take_is_one_line(name, device):
    with torch.device(device):
        model = build_model(ModelConfig(name=name), 3)
    with pytest.raises(
        UserError, match=rf"{name} does not take images of 64x64: .*; change data.size, or choose"
    ) as told:
        model(torch.zeros(1, 3, 64, 64, device=device))
    assert "\n" not in str(told.value)


def test_what_is_no_matter_of_size_stays_what_it_is():
    model = build_model(ModelConfig(name="timm/mobilenetv3_small_050"), 3)
    short = torch.OutOfMemoryError("CUDA out of memory")
    model.backbone.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(short))
    with pytest.raises(torch.OutOfMemoryError):
        model(torch.zeros(1, 3, 64, 64))


@torch.no_grad()
def test_stochastic_depth_follows_the_keys():
    model = Network("timm/convnext_atto").build(drop_path=0.5, dropout=0.0).train()
    image = image_like(model, (32, 64), n=4)
    one, same, other = (model(image, keys).features[3] for keys in (KEYS, KEYS, KEYS + 1))
    assert torch.equal(one, same)
    assert not torch.allclose(one, other)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm/resnet81", "unknown timm network 'resnet81'; did you mean timm/resnet18"),
        ("timm/zzzzzzzzz", "unknown timm network 'zzzzzzzzz'; timm.list_models() lists all"),
        ("timm/resnet18.a1_in1k", "the part behind the dot names pretrained weights, which are only read from files"),
        (
            "timm/vit_tiny_patch16_224",
            "has no feature pyramid: stages of strides 4, 8, 16, 32 are needed, but its strides are 16, 16, 16, "
            "without 4, 8, 32; choose a backbone with stages, such as timm/resnet18",
        ),
    ],
)
def test_what_is_no_pyramid_is_refused(name, message):
    with pytest.raises(UserError, match=re.escape(message)), torch.device("meta"):
        build_model(ModelConfig(name=name), 3)


def test_paths_on_patch_embeddings_refuse_it():
    ours = Channels((8, 8, 8, 8), (8, 8, 8, 8), (4, 8, 16, 32), 5)
    without = ours._replace(embeds=())
    for student, teacher, who in ((without, ours, "student"), (ours, without, "teacher")):
        with pytest.raises(UserError, match=rf"distill.pea: it reads patch embeddings, which the {who} does not have"):
            build_distillers({"pea": Term()}, student, teacher, 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_a_file_of_timms_weights_initialises_the_backbone(name, tmp_path: Path):
    """timm's extractor has other names than timm's classifier: `stages_0` for `stages.0`."""
    whole = timm.create_model(name)
    torch.save(whole.state_dict(), tmp_path / "weights.pt")
    model = Network(f"timm/{name}").build()
    coverage = load_weights(model, tmp_path / "weights.pt", what="backbone")
    assert coverage.complete
    theirs = dict(whole.named_parameters())
    first = next(iter(theirs))
    ours = dict(model.backbone.named_parameters())
    assert any(torch.equal(theirs[first], p) for p in ours.values() if p.shape == theirs[first].shape)


def test_its_own_checkpoint_is_read_back(tmp_path: Path):
    model, other = (Network("timm/mobilenetv3_small_050").build(seed=seed) for seed in (0, 1))
    torch.save({"model": model.state_dict()}, tmp_path / "best.pt")
    assert load_weights(other, tmp_path / "best.pt", what="all").complete
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))
