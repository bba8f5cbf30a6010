"""BatchNorm over groups of `norm_batch` samples, so that its statistics do not depend on micro-batches or workers.

In training, each group of `norm_batch` consecutive samples of the global batch is normalised by its own statistics,
which are added in float64 to pending sums. A group may be split over workers. Once per optimiser step, `commit` updates
the running statistics from the sums of all groups, micro-batches and ranks, so they do not depend on how the global
batch is split.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer import parallel
from trainer.config import UserError
from trainer.config.blame import named
from trainer.models.groups import are_split, parts


class GroupedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm over (N, C, H, W) in groups of `norm_batch` samples; None makes the whole batch one group."""

    pending: Tensor  # (2 C + 1,) float64: sums over groups of the mean and the unbiased variance, and their count
    latest: Tensor  # (2 C + 1,) the mean and the unbiased variance of one group, and 1

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(num_features, eps=eps, momentum=momentum)
        self.norm_batch: int | None = None
        self.register_buffer("pending", torch.zeros(2 * num_features + 1, dtype=torch.float64), persistent=False)
        self.register_buffer(
            "latest", torch.zeros(2 * num_features + 1).index_fill(0, torch.tensor(-1), 1.0), persistent=False
        )

    def set_norm_batch(self, norm_batch: int) -> None:
        """Set the number of samples in one group."""
        self.norm_batch = norm_batch

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> GroupedBatchNorm2d:
        super()._apply(fn, recurse)
        self.pending = self.pending.double()  # `module.float()` casts buffers too, but the sums need float64
        return self

    @property
    def statistics(self) -> tuple[Tensor, Tensor]:
        """The running mean and variance, (C,) each."""
        assert self.running_mean is not None and self.running_var is not None
        return self.running_mean, self.running_var

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) -> the same shape. Raises UserError unless N is a multiple of `norm_batch`."""
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        size = self.norm_batch or len(x)
        if size * x[0, 0].numel() == 1:
            raise UserError(
                "BatchNorm needs more than one value a channel but got maps of 1x1 and groups of 1 sample; "
                "raise optim.norm_batch or data.size"
            )
        if are_split(len(x), size):
            return self._split(x, size)
        mean, var, _ = self.latest.split([self.num_features, self.num_features, 1])
        outputs = []
        for group in x.split(size):
            # momentum 1 leaves exactly this group's mean and unbiased variance in the two buffers
            outputs.append(F.batch_norm(group, mean, var, self.weight, self.bias, True, 1.0, self.eps))
            self.pending += self.latest
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _split(self, x: Tensor, size: int) -> Tensor:
        """The forward pass where groups are split over workers."""
        output, means, variances = _SplitNorm.apply(x, self.weight, self.bias, size, self.eps)
        values = size * x[0, 0].numel()
        for part in parts(len(x), size):
            if part.group * size >= parallel.rank() * len(x):  # a group is counted where its first sample is
                self._remember(means[part.group], variances[part.group] * (values / (values - 1)))
        return output

    @torch.no_grad()
    def _remember(self, mean: Tensor, var: Tensor) -> None:
        self.pending += torch.cat([mean.double(), var.double(), self.pending.new_ones(1)])


class GroupedBatchNorm1d(GroupedBatchNorm2d):
    """BatchNorm over (N, C, L) in groups of `norm_batch` samples."""

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, L) -> the same shape. Raises UserError for other shapes: rows of (R, C) may be tokens of samples,
        which no group can be made of."""
        if x.ndim != 3:
            raise UserError(
                f"BatchNorm over sequences takes inputs (N, C, L), one for each sample, but got {tuple(x.shape)}; "
                "choose another network"
            )
        return super().forward(x[..., None])[..., 0]


class _SplitNorm(torch.autograd.Function):
    """BatchNorm of groups that are split over workers. All sums are at least float32, added in the order of ranks.

    x (N, C, H, W) -> the same shape; mean and biased variance of each group of the global batch, (G, C). Each worker
    sends two numbers a group and channel in either direction (Ioffe and Szegedy 2015, equations 1 to 4).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, size: int, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        own = parts(len(x), size)
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        groups, pixels = len(x) * parallel.world() // size, x[0, 0].numel()
        sums = values.new_zeros(groups, 3, x.shape[1], dtype=torch.float64)
        for part in own:
            var, mean = torch.var_mean(values[part.own], (0, 2, 3), correction=0)
            sums[part.group] = torch.stack(
                [torch.full_like(mean, (part.own.stop - part.own.start) * pixels), mean, var]
            )
        count, mean, var = parallel.gather(sums).unbind(2)  # (world, G, C) each
        share = count / (size * pixels)
        centre = (share * mean).sum(0)
        spread = (share * (var + (mean - centre).square())).sum(0)
        centre, spread = centre.to(values.dtype), spread.to(values.dtype)
        scale = (spread + eps).rsqrt()
        of_sample = [(parallel.rank() * len(x) + place) // size for place in range(len(x))]
        normed = (values - centre[of_sample, :, None, None]) * scale[of_sample, :, None, None]
        ctx.save_for_backward(normed, weight, scale)
        ctx.own, ctx.of_sample, ctx.values = own, of_sample, size * pixels
        ctx.mark_non_differentiable(centre, spread)
        output = normed * weight.to(normed.dtype)[:, None, None] + bias.to(normed.dtype)[:, None, None]
        return output.to(x.dtype), centre, spread

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        normed, weight, scale = ctx.saved_tensors
        flow = gradient.to(normed.dtype)
        sums = normed.new_zeros(len(scale), 2, normed.shape[1])
        for part in ctx.own:
            sums[part.group, 0] = flow[part.own].sum((0, 2, 3))
            sums[part.group, 1] = (flow[part.own] * normed[part.own]).sum((0, 2, 3))
        of_bias, of_weight = sums.sum(0)
        total = (parallel.gather(sums).sum(0) / ctx.values)[ctx.of_sample, :, :, None, None]
        inner = flow - total[:, 0] - normed * total[:, 1]
        back = inner * (weight.to(normed.dtype) * scale)[ctx.of_sample, :, None, None]
        return back.to(gradient.dtype), of_weight.to(weight.dtype), of_bias.to(weight.dtype), None, None


def set_norm_batch(root: nn.Module, norm_batch: int) -> None:
    """Set the number of samples in one BatchNorm group in every module that depends on it. Raises UserError for a
    module that knows no groups and computes statistics of the samples it is given."""
    for path, module in root.named_modules():
        if not isinstance(module, GroupedBatchNorm2d) and takes_statistics(module):
            kind, parts = type(module).__name__, path.split(".")
            owners = (root.get_submodule(".".join(parts[:end])) for end in range(len(parts), -1, -1))
            begin = next((found for owner in owners if (found := named(owner))), "")
            raise UserError(
                f"{begin}{path} is {kind}, whose statistics depend on micro-batches and workers; use "
                "GroupedBatchNorm2d or GroupedBatchNorm1d (trainer.models.norm), or choose another network"
            )
        declare = getattr(module, "set_norm_batch", None)
        if callable(declare):
            declare(norm_batch)


def takes_statistics(module: nn.Module) -> bool:
    """Whether a module is a BatchNorm, ours, torch's or one of another package, which keeps running statistics too."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm) or getattr(module, "running_var", None) is not None


@torch.no_grad()
def commit(root: nn.Module, all_reduce: Callable[[Tensor], Tensor]) -> None:
    """Reduce the pending sums over ranks and update the running statistics with their averages; called once per
    optimiser step. Norms that no forward pass has reached stay as they are. Nothing waits for the device."""
    norms = [m for m in root.modules() if isinstance(m, GroupedBatchNorm2d) and m.training]
    if not norms:
        return
    sums = all_reduce(torch.cat([norm.pending for norm in norms]))
    parts = sums.split([size for norm in norms for size in (2 * norm.num_features, 1)])
    counts = torch.cat(parts[1::2])
    means = torch._foreach_div(parts[0::2], counts.clamp(min=1).unbind())
    running = [buffer for norm in norms for buffer in norm.statistics]
    dtype = running[0].dtype
    latest = torch.cat(means).to(dtype).split([len(buffer) for buffer in running])
    reached = counts.clamp(max=1)
    momenta = torch._foreach_mul(reached.unbind(), [norm.momentum or 0.1 for norm in norms])
    weights = torch.stack(momenta).to(dtype).repeat_interleave(2).unbind()
    torch.ops.aten._foreach_lerp_.List(running, latest, weights)  # torch._foreach_lerp_ of tensors cannot be traced
    steps: Any = [norm.num_batches_tracked for norm in norms]
    torch._foreach_add_(steps, reached.to(torch.int64).unbind())
    torch._foreach_zero_([norm.pending for norm in norms])
