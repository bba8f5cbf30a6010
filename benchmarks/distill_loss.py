"""How much cheaper are our distances than the same functions written plainly?   python benchmarks/distill_loss.py

Loss and backward over the four stages of SegFormer-B2 at 256x512, batch 2, one thread; arms alternate in one run, and
the best of their rounds is shown. `maps` are laid out as the networks leave them, channels last, and contiguously.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.distill.divergences import channel_divergence, pixel_divergence
from trainer.distill.losses import hierarchical_context
from trainer.distill.pea import align

SHAPES = ((2, 64, 64, 128), (2, 128, 32, 64), (2, 320, 16, 32), (2, 512, 8, 16))
STAGE_WEIGHTS = (0.1, 0.1, 0.5, 1.0)
ROUNDS = 30

Loss = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]


def plain_context(student: Tensor, teacher: Tensor) -> Tensor:
    """The hierarchical context loss as its definition reads: both maps pooled at each level."""
    loss, weight, total = F.mse_loss(student, teacher), 1.0, 1.0
    for level in (4, 2, 1):
        if level < student.shape[2]:
            weight /= 2
            total += weight
            pooled = (F.adaptive_avg_pool2d(x, level) for x in (student, teacher))
            loss = loss + weight * F.mse_loss(*pooled)
    return loss / total


def plain_pixel_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """The divergence over the channels of each pixel as its definition reads."""
    return F.kl_div(student.log_softmax(1), teacher.softmax(1), reduction="sum") / student[:, 0].numel()


def plain_channel_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """The divergence over the positions of each channel as its definition reads."""
    ours, theirs = student.flatten(2), teacher.flatten(2)
    return F.kl_div(ours.log_softmax(2), theirs.softmax(2), reduction="sum") / ours[..., 0].numel()


def plain_alignment(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """The alignment loss as its definition reads."""
    return torch.stack([w * F.mse_loss(s, t) for w, s, t in zip(STAGE_WEIGHTS, student, teacher, strict=True)]).sum()


def over_stages(loss: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    """The sum over stages of a loss of one stage."""
    return lambda student, teacher: torch.stack([loss(s, t) for s, t in zip(student, teacher, strict=True)]).sum()


def measure(arms: dict[str, Loss], student: list[Tensor], teacher: list[Tensor]) -> dict[str, tuple[float, float]]:
    """Milliseconds of loss and backward, and the loss, for each arm."""
    best = {name: (float("inf"), 0.0) for name in arms}
    for _ in range(ROUNDS):
        for name, loss in arms.items():
            inputs = [s.detach().requires_grad_() for s in student]
            start = time.perf_counter()
            value = loss(inputs, teacher)
            value.backward()
            best[name] = min(best[name], ((time.perf_counter() - start) * 1e3, value.item()))
    return best


def main() -> None:
    torch.set_num_threads(1)
    rng = torch.Generator().manual_seed(0)
    maps = [[torch.randn(shape, generator=rng) for shape in SHAPES] for _ in range(2)]
    channels_last = [[m.contiguous(memory_format=torch.channels_last) for m in side] for side in maps]
    tokens = [[m.flatten(2).transpose(1, 2) for m in side] for side in channels_last]
    context = {"plain": over_stages(plain_context), "ours": over_stages(hierarchical_context)}
    pixels = {"plain": over_stages(plain_pixel_divergence), "ours": over_stages(pixel_divergence)}
    channels = {"plain": over_stages(plain_channel_divergence), "ours": over_stages(channel_divergence)}
    alignment: dict[str, Loss] = {"plain": plain_alignment, "ours": lambda s, t: align(s, t, STAGE_WEIGHTS)}
    print(f"{'loss + backward':38s}{'plain ms':>10s}{'ours ms':>10s}{'ratio':>8s}{'relative difference':>22s}")
    for title, arms, sides in (
        ("hierarchical context, maps NHWC", context, channels_last),
        ("hierarchical context, maps NCHW", context, maps),
        ("alignment, tokens", alignment, tokens),
        ("pixel divergence, maps NHWC", pixels, channels_last),
        ("pixel divergence, maps NCHW", pixels, maps),
        ("channel divergence, maps NHWC", channels, channels_last),
        ("channel divergence, maps NCHW", channels, maps),
    ):
        times = measure(arms, *sides)
        (plain, plain_value), (ours, our_value) = times["plain"], times["ours"]
        apart = abs(our_value / plain_value - 1)
        print(f"{title:38s}{plain:10.2f}{ours:10.2f}{plain / ours:8.2f}{apart:22.1e}")


if __name__ == "__main__":
    main()
