"""A TransKD-Base training step, B2 -> B0: ours, the published style, and ours in parts, interleaved in one process.

Prints the median time of each and its ratio to the first.
Run: python benchmarks/step.py [HEIGHT WIDTH [ROUNDS [BATCH]]] [--compiled]
`--compiled` adds compiled steps; torch compiles them for minutes in the first round. The parts are the teacher's
forward pass, a step of the student alone, and losses, gradients and optimiser of the paths on given maps.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Literal

import torch
from published_style import PlainStep
from ratios import record
from torch import nn

from trainer.config import ModelConfig, OptimConfig, Term
from trainer.data.batch import Batch
from trainer.distill import build_distillers
from trainer.models import build_model
from trainer.models.base import SegModel, SegOutput
from trainer.models.norm import set_norm_batch
from trainer.training.compiled import Compiler
from trainer.training.learner import Learner
from trainer.training.task import Distilled
from trainer.training.teacher import Teacher

TERMS = {"csf": Term(), "pea": Term()}
PUBLISHED = "published style, fp32"
Step = Callable[[Batch], object]
Precision = Literal["fp32", "bf16"]


class Networks:
    """Teacher, student and paths on a device, with the steps that benchmarks time."""

    def __init__(
        self,
        device: torch.device,
        batch: int,
        precision: Precision = "fp32",
        teacher_precision: Precision | None = None,
        compiler: Compiler | None = None,
    ) -> None:
        torch.manual_seed(0)
        network: SegModel = build_model(ModelConfig(name="segformer_b2"), 19).to(device).eval().requires_grad_(False)
        self.student = build_model(ModelConfig(name="segformer_b0"), 19)
        self.paths = build_distillers(TERMS, self.student.channels, network.channels, 0)
        self.optim = OptimConfig(global_batch=batch, precision=precision)
        self.device, self.compiler = device, compiler
        self.learner = self._learner(Distilled(self.student, self.paths, 19))
        needs = self.learner.distilled.teacher_needs
        bf16 = (teacher_precision or precision) == "bf16"
        self.teacher = Teacher(network, needs, bf16, compiler=compiler)

    def _learner(self, distilled: Distilled) -> Learner:
        distilled.to(self.device)
        set_norm_batch(distilled, self.optim.effective_norm_batch)
        return Learner(distilled, self.optim, TERMS if distilled.paths else {}, self.compiler)

    def step(self, batch: Batch) -> None:
        """The whole step."""
        _step(self.learner, batch, self.teacher(batch.image))

    def parts(self, batch: Batch) -> dict[str, Step]:
        """The parts of a step, each alone."""
        alone = self._learner(Distilled(build_model(ModelConfig(name="segformer_b0"), 19), {}, 19))
        theirs = self.teacher(batch.image)
        with torch.no_grad(), self.learner.autocast:
            ours = self.student(batch.image, batch.keys)
        paths = nn.ModuleDict(self.paths)
        optimiser = torch.optim.AdamW(paths.parameters(), lr=1e-4, fused=True)

        def of_paths(batch: Batch) -> None:
            given = SegOutput(None, _leaves(ours.features), _leaves(ours.embeds))
            with self.learner.autocast:
                loss = torch.stack([path(batch, given, theirs) for path in paths.values()]).sum()
            loss.backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

        return {
            "the teacher alone": lambda batch: self.teacher(batch.image),
            "the student alone": lambda batch: _step(alone, batch, None),
            "the paths alone": of_paths,
        }


def _leaves(maps: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(each.detach().requires_grad_() for each in maps)


def _step(learner: Learner, batch: Batch, output: SegOutput | None) -> None:
    pixels = torch.tensor(float(batch.label.numel()), device=batch.image.device)
    learner.accumulate(batch, output, pixels, len(batch.image), last=True)
    learner.update(1e-4, 0)


def seconds(steps: dict[str, Step], batch: Batch, rounds: int) -> dict[str, list[float]]:
    """Seconds of each step, taken in turn; a first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, run in steps.items():
            started = time.perf_counter()
            run(batch)
            if batch.image.is_cuda:
                torch.cuda.synchronize()
            if turn:
                times[name].append(time.perf_counter() - started)
    return times


def main() -> None:
    """Measure and print."""
    given = [int(text) for text in sys.argv[1:] if text != "--compiled"]
    height, width, rounds, size = given + [256, 512, 5, 2][len(given) :]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batch = Batch(
        torch.randn(size, 3, height, width, device=device),
        torch.randint(0, 19, (size, height, width), device=device),
        torch.arange(size, device=device),
    )
    ours = Networks(device, size)
    steps: dict[str, Step] = {
        PUBLISHED: PlainStep().to(device),
        "ours, fp32": ours.step,
    }
    if device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported():
        steps["ours, bf16"] = Networks(device, size, "bf16").step
        steps["ours, fp32 with bf16 teacher"] = Networks(device, size, teacher_precision="bf16").step
    else:
        print("bf16 is not measured: this CPU has no instructions for it, and torch emulates them")
    if "--compiled" in sys.argv:
        compiler = Compiler(cuda_graphs=device.type == "cuda")
        steps["ours, compiled, fp32"] = Networks(device, size, compiler=compiler).step
        steps["ours, compiled, bf16"] = Networks(device, size, "bf16", compiler=compiler).step
    parts = ours.parts(batch)
    times = seconds({**steps, **parts}, batch, rounds)
    report(times, f"B2 -> B0, batch {size}, {height}x{width}, {device}", tuple(parts))


def report(times: dict[str, list[float]], what: str, parts: tuple[str, ...]) -> None:
    """Print the medians, and keep the ratios."""
    median = {name: statistics.median(values) for name, values in times.items()}
    first = median[PUBLISHED]
    print(f"TransKD-Base step, {what}, {torch.get_num_threads()} threads")
    for name, values in times.items():
        print(f"{name:30} {median[name] * 1e3:8.0f} ms {first / median[name]:8.2f} x  (least {min(values) * 1e3:.0f})")
    over = median["ours, fp32"] / sum(median[part] for part in parts)
    print(f"ours over the sum of its parts: {over:.2f}")
    on_cpu = "cpu" in what
    targets = {"ours, fp32": 3.6, "ours, bf16": 5.0, "ours, fp32 with bf16 teacher": 4.3}
    for name in [name for name in median if name.startswith("ours")]:
        record(f"step, {what}: published style over {name}", first / median[name], targets.get(name) if on_cpu else 4.0)
    record(f"step, {what}: the sum of its parts over the step", 1 / over, 1 / 1.05 if on_cpu else 1 / 1.1)


if __name__ == "__main__":
    main()
