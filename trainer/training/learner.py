"""Learner: student, paths and optimiser; it accumulates gradients, then steps."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainer import parallel
from trainer.config import NumericalError, OptimConfig, Term
from trainer.data.batch import Batch
from trainer.models import norm
from trainer.models.base import SegModel, SegOutput
from trainer.training.average import Average
from trainer.training.compiled import Compiler
from trainer.training.optimiser import build_optimiser
from trainer.training.task import Distilled, weighted_losses


class Learner:
    """A Distilled module with its optimiser: `accumulate` each micro-batch of a step, then `update` once.

    `terms` has the weights of its losses; one that is not there has the weight 1.
    """

    def __init__(
        self,
        distilled: Distilled,
        optim: OptimConfig,
        terms: Mapping[str, Term],
        compiler: Compiler | None = None,
    ) -> None:
        self.distilled = distilled
        self.optim = optim
        self.device = next(distilled.parameters()).device
        names = [*distilled.losses, *distilled.paths]
        self.losses = ["loss", *(f"loss/{name}" for name in names)]
        self.optimiser, self._factors = build_optimiser(distilled, optim)
        self.average = Average(distilled.student, optim.ema_decay) if optim.ema_decay is not None else None
        weights = {name: terms[name].weight if name in terms else 1.0 for name in names}
        self.module: nn.Module = Objective(distilled, weights, compiler)
        if parallel.world() > 1:
            self.module = DistributedDataParallel(self.module, broadcast_buffers=False, gradient_as_bucket_view=True)
            self.module.register_comm_hook(None, parallel.sum_gradients)
        self._keeps_gradients = compiler is not None and compiler.cuda_graphs
        if self._keeps_gradients:  # gradients are added to tensors of our own, as a graph's are overwritten
            for parameter in distilled.parameters():
                parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
        self._sums = torch.zeros(len(self.losses), dtype=torch.float64, device=self.device)
        self._first_bad = torch.full((len(self.losses),), -1, dtype=torch.int64, device=self.device)
        self._step_losses = torch.zeros_like(self._sums)
        self._steps = 0

    @property
    def deployed(self) -> SegModel:
        """The student that is validated, saved and deployed: its moving average, where the run has one."""
        return self.distilled.student if self.average is None else self.average.model

    @property
    def autocast(self) -> torch.autocast:
        """The precision of forward passes; parameters and optimiser stay float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.optim.precision == "bf16")

    def accumulate(self, batch: Batch, teacher: SegOutput | None, pixels: Tensor, samples: int, *, last: bool) -> None:
        """Add the gradients of one micro-batch; `last` marks the step's last one, which synchronises DDP.

        `pixels` (see `pixel_weight`) and `samples` are those of the *global* batch.
        """
        hold: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if isinstance(self.module, DistributedDataParallel) and not last:
            hold = self.module.no_sync()
        with hold:
            with self.autocast:
                total, losses = self.module(batch, teacher, pixels, samples)
            total.backward()
        self._step_losses += losses

    def update(self, lr: float, step: int) -> None:
        """One optimiser step with learning rate `lr`, then the updates of BatchNorm's statistics and of the average.

        `step` is the 0-based step of the run.
        """
        for group, factor in zip(self.optimiser.param_groups, self._factors, strict=True):
            group["lr"] = lr * factor
        if self.optim.clip_norm is not None:  # of the sum over micro-batches and workers
            torch.nn.utils.clip_grad_norm_(self.distilled.parameters(), self.optim.clip_norm)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=not self._keeps_gradients)
        norm.commit(self.distilled, parallel.all_reduce)
        if self.average is not None:
            self.average.update(self.distilled.student, step)
        finite = torch.isfinite(self._step_losses)
        self._first_bad = torch.where((self._first_bad < 0) & ~finite, step, self._first_bad)
        self._sums += self._step_losses
        self._step_losses = torch.zeros_like(self._sums)
        self._steps += 1

    def drain(self) -> dict[str, float]:
        """Mean losses per step since the last call, over all workers: `loss`, `loss/<name>`.

        Raises NumericalError naming the loss and the step when one was not finite.
        """
        sums = self.checked_sums()
        means = [total / max(1, self._steps) for total in sums]
        self._sums.zero_()
        self._steps = 0
        return dict(zip(self.losses, means, strict=True))

    def checked_sums(self) -> list[float]:
        """The losses of the steps since the last `drain`, added up over these and over all workers.

        Raises NumericalError naming the loss and the step when one was not finite.
        """
        bad = self._first_bad.clone()
        if parallel.joined():
            bad = torch.where(bad < 0, torch.iinfo(torch.int64).max, bad)
            dist.all_reduce(bad, dist.ReduceOp.MIN)
            bad = torch.where(bad == torch.iinfo(torch.int64).max, -1, bad)
        failed = sorted((step, -i) for i, step in enumerate(bad.tolist()) if step >= 0)
        if failed:
            step, position = failed[0]
            raise NumericalError(f"{self.losses[-position]} is not finite at step {step}")
        return parallel.all_reduce(self._sums.clone()).tolist()

    def go_on_from(self, sums: Sequence[float], steps: int) -> None:
        """Go on in an epoch of which `steps` are done, with what `checked_sums` returned after them."""
        if sums and parallel.rank() == 0:  # the sum over the workers has it once
            self._sums = torch.tensor(sums, dtype=self._sums.dtype, device=self.device)
        self._steps = steps


class Objective(nn.Module):
    """The weighted losses of a Distilled module as one module, which DDP can wrap and which may be compiled."""

    def __init__(self, distilled: Distilled, weights: Mapping[str, float], compiler: Compiler | None) -> None:
        super().__init__()
        self.distilled, self.weights = distilled, dict(weights)
        self._losses = compiler(weighted_losses) if compiler else weighted_losses

    def forward(self, batch: Batch, teacher: SegOutput | None, pixels: Tensor, samples: int) -> tuple[Tensor, Tensor]:
        """What `weighted_losses` returns."""
        return self._losses(self.distilled, self.weights, batch, teacher, pixels, samples)
