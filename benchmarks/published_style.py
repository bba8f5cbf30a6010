"""TransKD-Base written plainly, as training scripts write it: what benchmarks compare our step with.

The teacher records a graph that nobody uses, attention is two products and a softmax, maps are made contiguous between
tokens and convolutions, the head upsamples before it multiplies, drop-path draws a mask at every block, normalisation
is torch's BatchNorm, AdamW is torch's default, and each step counts its IoU by one-hot labels. Parameters have our
names, so that the same weights can be loaded into both; then both compute the same losses (`tests/test_benchmarks.py`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.config import ModelConfig, Term
from trainer.data.batch import Batch
from trainer.distill import build_distillers
from trainer.distill.csf import SelectiveKernel
from trainer.distill.pea import STAGE_WEIGHTS
from trainer.models import build_model
from trainer.models.segformer import SegFormer

Features = list[Tensor]


def drop_path(branch: Tensor, rate: float, training: bool) -> Tensor:
    """Drops the residual branch (N, L, C) of whole samples."""
    if rate == 0 or not training:
        return branch
    kept = torch.rand(len(branch), 1, 1, device=branch.device) >= rate
    return branch.div(1 - rate) * kept


class PlainSegFormer(nn.Module):
    """A SegFormer with the parameters of ours and a plain forward pass: image -> logits, features, embeds."""

    def __init__(self, name: str, classes: int) -> None:
        super().__init__()
        built = build_model(ModelConfig(name=name), classes)
        assert isinstance(built, SegFormer)
        self.net = plain_norms(built)
        self.rates = {name: module.rate for name, module in built.named_modules() if hasattr(module, "rate")}

    def forward(self, image: Tensor) -> tuple[Tensor, Features, Features]:
        """image (N, 3, H, W) -> logits (N, K, H/4, W/4), features (N, C_i, h, w), embeds (N, L_i, C_i)."""
        x, features, embeds = image, [], []
        for stage in range(1, 5):
            tokens, size = self.embed(getattr(self.net, f"patch_embed{stage}"), x)
            embeds.append(tokens)
            for position, block in enumerate(getattr(self.net, f"block{stage}")):
                tokens = self.block(block, tokens, size, f"block{stage}.{position}")
            tokens = getattr(self.net, f"norm{stage}")(tokens)
            x = tokens.reshape(len(tokens), *size, -1).permute(0, 3, 1, 2).contiguous()
            features.append(x)
        return self.head(features), features, embeds

    def embed(self, module: nn.Module, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """x (N, C, H, W) -> tokens (N, L, C) and their (h, w)."""
        x = module.proj(x)  # type: ignore[operator]
        return module.norm(x.flatten(2).transpose(1, 2)), (x.shape[2], x.shape[3])  # type: ignore[operator]

    def block(self, block: nn.Module, tokens: Tensor, size: tuple[int, int], name: str) -> Tensor:
        """tokens (N, L, C) of a map of `size` -> (N, L, C)."""
        for branch, norm, drop in (("attn", "norm1", "drop_attn"), ("mlp", "norm2", "drop_mlp")):
            run: Callable[..., Tensor] = attention if branch == "attn" else feed_forward
            out = run(getattr(block, branch), getattr(block, norm)(tokens), size)
            tokens = tokens + drop_path(out, self.rates[f"{name}.{drop}"], self.training)
        return tokens

    def head(self, features: Features) -> Tensor:
        """The published arrangement: project, upsample, concatenate, convolve."""
        maps = []
        for stage in (4, 3, 2, 1):
            feature = features[stage - 1]
            tokens = getattr(self.net, f"linear_c{stage}").proj(feature.flatten(2).transpose(1, 2))
            grid = tokens.permute(0, 2, 1).reshape(len(tokens), -1, *feature.shape[2:])
            maps.append(F.interpolate(grid, size=features[0].shape[2:], mode="bilinear", align_corners=False))
        fused = self.net.linear_fuse
        x = F.relu(fused.bn(fused.conv(torch.cat(maps, 1))))
        return self.net.linear_pred(F.dropout2d(x, self.rates["dropout"], self.training))


def attention(module: nn.Module, tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """Self-attention with reduced keys, by two products and a softmax."""
    n, length, width = tokens.shape
    heads: int = module.heads  # type: ignore[assignment]
    query = module.q(tokens).reshape(n, length, heads, width // heads).permute(0, 2, 1, 3)  # type: ignore[operator]
    reduced = tokens
    if hasattr(module, "sr"):
        grid = tokens.permute(0, 2, 1).reshape(n, width, *size)
        reduced = module.norm(module.sr(grid).reshape(n, width, -1).permute(0, 2, 1))  # type: ignore[operator]
    both = module.kv(reduced).reshape(n, -1, 2, heads, width // heads).permute(2, 0, 3, 1, 4)  # type: ignore[operator]
    scores = (query @ both[0].transpose(-2, -1)) * (width // heads) ** -0.5
    mixed = (scores.softmax(dim=-1) @ both[1]).transpose(1, 2).reshape(n, length, width)
    return module.proj(mixed)  # type: ignore[operator]


def feed_forward(module: nn.Module, tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """Linear, depthwise convolution on a contiguous map, GELU, linear."""
    x = module.fc1(tokens)  # type: ignore[operator]
    grid = x.transpose(1, 2).reshape(len(x), -1, *size)
    grid = module.dwconv.dwconv(grid)  # type: ignore[union-attr, operator]
    return module.fc2(F.gelu(grid.flatten(2).transpose(1, 2)))  # type: ignore[operator]


def plain_norms(root: nn.Module) -> nn.Module:
    """`root` with torch's BatchNorm2d instead of ours, of the same parameters and buffers."""
    for name, child in root.named_children():
        if isinstance(child, nn.BatchNorm2d):
            norm = nn.BatchNorm2d(child.num_features, child.eps, child.momentum)
            norm.load_state_dict(child.state_dict())
            setattr(root, name, norm)
        else:
            plain_norms(child)
    return root


class PlainStep:
    """A TransKD-Base training step of two SegFormers."""

    def __init__(self, teacher: str = "segformer_b2", student: str = "segformer_b0", classes: int = 19) -> None:
        self.classes = classes
        self.teacher, self.student = PlainSegFormer(teacher, classes).eval(), PlainSegFormer(student, classes)
        paths = build_distillers(
            {"csf": Term(), "pea": Term()}, self.student.net.channels, self.teacher.net.channels, 0
        )
        self.csf, self.pea = plain_norms(paths["csf"]), paths["pea"]
        self.optimiser: torch.optim.Optimizer | None = None
        self.counts: list[Tensor] = []

    @property
    def modules(self) -> list[nn.Module]:
        """Student and paths: what is trained."""
        return [self.student, self.csf, self.pea]

    def to(self, device: torch.device) -> PlainStep:
        """Move all to a device, and make the optimiser."""
        for module in (self.teacher, *self.modules):
            module.to(device)
        self.optimiser = torch.optim.AdamW([p for module in self.modules for p in module.parameters()], lr=1e-4)
        return self

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The total loss, and the student's logits."""
        _, theirs, their_embeds = self.teacher(batch.image)
        logits, ours, our_embeds = self.student(batch.image)
        upsampled = F.interpolate(logits, size=batch.label.shape[-2:], mode="bilinear", align_corners=False)
        loss = F.cross_entropy(upsampled, batch.label, ignore_index=255)
        loss = loss + self.fusion_loss(ours, theirs)
        for weight, projection, mine, other in zip(
            STAGE_WEIGHTS, self.pea.projections, our_embeds, their_embeds, strict=True
        ):
            loss = loss + weight * F.mse_loss(projection(mine), other)
        return loss, upsampled

    def fusion_loss(self, ours: Features, theirs: Features) -> Tensor:
        """CSF: fused from deep to shallow, each stage compared by the hierarchical context loss."""
        deeper, total = None, torch.zeros((), device=ours[0].device)
        for feature, other, fusion in zip(ours[::-1], theirs[::-1], list(self.csf.fusions)[::-1], strict=True):
            fused = fusion.reduce(feature)
            if deeper is not None:
                fused = select(fusion.kernel, fused, F.interpolate(deeper, size=fused.shape[-2:], mode="nearest"))
            total, deeper = total + hierarchical(fusion.expand(fused), other), fused
        return total

    def __call__(self, batch: Batch) -> None:
        """One optimiser step, and the counts of its IoU."""
        assert self.optimiser is not None
        loss, logits = self.loss(batch)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.counts.append(one_hot_counts(logits.detach().argmax(1), batch.label, self.classes).cpu())


def select(kernel: SelectiveKernel, own: Tensor, deeper: Tensor) -> Tensor:
    """Selective kernel attention: a softmax over two branches weighs two maps (N, M, H, W)."""
    squeezed = kernel.squeeze((own + deeper).mean((2, 3)))
    scores = torch.stack([kernel.own(squeezed), kernel.deeper(squeezed)], 1).softmax(1)[:, :, :, None, None]
    return (torch.stack([own, deeper], 1) * scores).sum(1)


def hierarchical(ours: Tensor, theirs: Tensor) -> Tensor:
    """The hierarchical context loss, pooling both maps at each level."""
    loss, weight, total = F.mse_loss(ours, theirs), 1.0, 1.0
    for level in (4, 2, 1):
        if level >= ours.shape[2]:
            continue
        weight /= 2
        pools = F.adaptive_avg_pool2d(ours, level), F.adaptive_avg_pool2d(theirs, level)
        loss, total = loss + weight * F.mse_loss(*pools), total + weight
    return loss / total


def one_hot_counts(predicted: Tensor, label: Tensor, classes: int) -> Tensor:
    """(3, K): true positives, false positives and false negatives of (N, H, W) maps, by one-hot maps."""
    valid = (label != 255)[:, None]
    truth = torch.zeros(len(label), classes, *label.shape[1:], device=label.device)
    truth.scatter_(1, label.clamp(max=classes - 1)[:, None], 1.0)
    said = torch.zeros_like(truth).scatter_(1, predicted[:, None], 1.0)
    hit = (said * truth * valid).sum((0, 2, 3))
    return torch.stack([hit, (said * valid).sum((0, 2, 3)) - hit, (truth * valid).sum((0, 2, 3)) - hit])
