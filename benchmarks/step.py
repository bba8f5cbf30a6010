"""A TransKD-Base training step, B2 -> B0, in variants that differ by one thing, interleaved in one process.

Prints the median time of each and its ratio to the first. Run: python benchmarks/step.py [HEIGHT WIDTH [ROUNDS]]
`--compiled` adds the compiled step; torch compiles it for minutes in the first round.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.config import ModelConfig, OptimConfig, Term
from trainer.data.batch import Batch
from trainer.distill import build_distillers
from trainer.models import build_model
from trainer.models.all_mlp import FoldedFusion
from trainer.models.base import EVERYTHING, SegModel
from trainer.models.norm import set_norm_batch
from trainer.training.compiled import Compiler
from trainer.training.learner import Learner
from trainer.training.task import Distilled
from trainer.training.teacher import Teacher

TERMS = {"csf": Term(), "pea": Term()}


class PublishedFusion(FoldedFusion):
    """The published arrangement of the head: project, upsample, concatenate, convolve."""

    def forward(self, features: list[Tensor], projections: list[nn.Linear]) -> Tensor:
        """The same function as FoldedFusion's, computed as published."""
        maps = []
        for feature, projection in zip(features, projections, strict=True):
            projected = projection(feature.flatten(2).transpose(1, 2)).transpose(1, 2)
            grid = projected.reshape(*projected.shape[:2], *feature.shape[2:])
            maps.append(F.interpolate(grid, size=features[0].shape[2:], mode="bilinear", align_corners=False))
        return self.activate(self.bn(self.conv(torch.cat(maps[::-1], dim=1))))


def step(
    device: torch.device,
    *,
    precision: Literal["fp32", "bf16"] = "fp32",
    teacher_precision: Literal["fp32", "bf16"] | None = None,
    published: bool = False,
    graph: bool = False,
    compiler: Compiler | None = None,
) -> Callable[[Batch], None]:
    """One training step as a function of its batch. `published`: the head unfolded and the teacher's head computed
    though nothing reads it; `graph`: the teacher records a graph, as the published code lets it."""
    torch.manual_seed(0)
    teacher: SegModel = build_model(ModelConfig(name="segformer_b2"), 19).to(device).eval()
    student = build_model(ModelConfig(name="segformer_b0"), 19)
    if published:
        for model in (teacher, student):
            model.linear_fuse.__class__ = PublishedFusion
    distilled = Distilled(student, build_distillers(TERMS, student.channels, teacher.channels, 0), 19).to(device)
    optim = OptimConfig(global_batch=2, precision=precision)
    set_norm_batch(distilled, optim.effective_norm_batch)
    learner = Learner(distilled, optim, TERMS, compiler)
    needs = EVERYTHING if published else distilled.teacher_needs
    bf16 = (teacher_precision or precision) == "bf16"
    taught = Teacher(teacher.requires_grad_(graph), needs, bf16, compiler=compiler)

    def run(batch: Batch) -> None:
        output = teacher(batch.image, None, needs) if graph else taught(batch.image)
        pixels = torch.tensor(float(batch.label.numel()), device=device)
        learner.accumulate(batch, output, pixels, len(batch.image), last=True)
        learner.update(1e-4, 0)
        teacher.zero_grad(set_to_none=True)

    return run


def main() -> None:
    """Measure and print."""
    given = [int(text) for text in sys.argv[1:] if text != "--compiled"]
    height, width = given[:2] or (256, 512)
    rounds = given[2] if len(given) > 2 else 5
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    variants = {
        "teacher with a graph, published head": step(device, published=True, graph=True),
        "teacher without a graph, published head": step(device, published=True),
        "ours": step(device),
        "ours, bf16": step(device, precision="bf16"),
        "ours, fp32 with bf16 teacher": step(device, teacher_precision="bf16"),
    }
    if "--compiled" in sys.argv:
        compiler = Compiler(cuda_graphs=device.type == "cuda")
        variants["ours, compiled"] = step(device, compiler=compiler)
        variants["ours, compiled, bf16"] = step(device, precision="bf16", compiler=compiler)
    batch = Batch(
        torch.randn(2, 3, height, width, device=device),
        torch.randint(0, 19, (2, height, width), device=device),
        torch.arange(2, device=device),
    )
    times: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds + 1):
        for name, run in variants.items():
            started = time.perf_counter()
            run(batch)
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first round warms up
                times[name].append(time.perf_counter() - started)
    first = statistics.median(next(iter(times.values())))
    print(f"TransKD-Base step, B2 -> B0, batch 2, {height}x{width}, {device}, {torch.get_num_threads()} threads")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:42} {median * 1000:8.0f} ms   {first / median:5.2f} x   (least {min(values) * 1000:.0f} ms)")


if __name__ == "__main__":
    main()
