"""The contract of a distiller, whatever it computes: each check takes a Path and raises ContractError.

Letters: N samples, H and W input height and width.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from trainer.config import Term
from trainer.contract.memory import FORGET, remembered
from trainer.contract.promise import Checks, require, require_first
from trainer.data.batch import Batch
from trainer.distill import DISTILLERS, build_distillers
from trainer.distill.base import Distiller
from trainer.models.base import EVERYTHING, Channels, SegOutput
from trainer.models.norm import set_norm_batch

STRIDES = (4, 8, 16, 32)
STUDENT = Channels((8, 16, 24, 32), (8, 16, 24, 32), STRIDES, 5)
WIDER = Channels((16, 24, 32, 40), (16, 24, 32, 40), STRIDES, 5)
SIZES = ((64, 96), (52, 68))


@dataclass(frozen=True)
class Path:
    """A distiller by name, with options."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(self, teacher: Channels = WIDER, seed: int = 0) -> Distiller:
        """The distiller between the student of this file and a teacher."""
        return build_distillers({self.name: Term(options=dict(self.options))}, STUDENT, teacher, seed)[self.name]


def output(channels: Channels, n: int, size: tuple[int, int], seed: int, grad: bool = False) -> SegOutput:
    """Random activations of a network of this geometry for n samples of an image size."""
    rng = torch.Generator().manual_seed(seed)
    maps = [(-(-size[0] // s), -(-size[1] // s)) for s in channels.strides]

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng).requires_grad_(grad)

    return SegOutput(
        draw(n, channels.classes, *maps[0]),
        tuple(draw(n, c, *hw) for c, hw in zip(channels.features, maps, strict=True)),
        tuple(draw(n, hw[0] * hw[1], c) for c, hw in zip(channels.embeds, maps, strict=True)),
    )


def batch_of(n: int, size: tuple[int, int]) -> Batch:
    """n random images without labelled objects, whose keys are 0 to n - 1."""
    return Batch(*_drawn(n, size))


def _drawn(n: int, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    image = torch.rand((n, 3, *size), generator=torch.Generator().manual_seed(9))
    return image, torch.zeros((n, *size), dtype=torch.int64), torch.arange(n)


def tensors(out: SegOutput) -> list[Tensor]:
    """All parts of an output."""
    return [t for t in (out.logits, *out.features, *out.embeds) if t is not None]


def each(out: SegOutput, change: Callable[[Tensor], Tensor]) -> SegOutput:
    """The same output with every tensor changed."""
    assert out.logits is not None
    return SegOutput(change(out.logits), tuple(map(change, out.features)), tuple(map(change, out.embeds)))


def gives_a_loss_with_a_gradient(path: Path) -> None:
    """A positive float32 scalar, whose gradient reaches the student and every parameter, and nothing of the teacher."""
    for teacher, size, norm_batch in itertools.product((STUDENT, WIDER), SIZES, (1, 2)):
        built = path.build(teacher)
        set_norm_batch(built, norm_batch)
        student, taught = output(STUDENT, 2, size, 1, grad=True), output(teacher, 2, size, 2)
        before = [t.detach().clone() for t in tensors(student) + tensors(taught)]
        loss = built(batch_of(2, size), student, taught)
        require_first(isinstance(loss, Tensor), f"the loss must be a tensor, but is {type(loss).__name__}; return it")
        require_first(loss.shape == (), f"the loss must be a scalar, but has shape {tuple(loss.shape)}")
        require_first(loss.dtype == torch.float32, f"the loss must be float32, but is {loss.dtype}")
        require_first(math.isfinite(loss.item()), f"the loss must be finite, but is {loss.item()}")
        require(loss.item() > 0, f"the loss must be above 0, but is {loss.item()}")
        require(loss.requires_grad, "the loss has no gradient: it does not depend on the student, or is detached")
        loss.backward()
        read = [t.grad for t in tensors(student) if t.grad is not None]
        require(
            bool(read) and all(bool(grad.abs().sum() > 0) for grad in read),
            "the gradient does not reach what it reads of the student; do not detach the student's outputs",
        )
        wrong = [n for n, p in built.named_parameters() if p.requires_grad != (p.grad is not None)]
        require(not wrong, f"its parameter {', '.join(wrong)} gets no gradient; use every parameter in forward")
        bad = [n for n, p in built.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
        require(not bad, f"the gradient of {', '.join(bad)} is not finite")
        reached = any(t.requires_grad or t.grad is not None for t in tensors(taught))
        require(
            not reached, "the gradient reaches the teacher, which is frozen; do not change requires_grad of outputs"
        )
        same = all(map(torch.equal, before, tensors(student) + tensors(taught)))
        require(same, "it changes the outputs of student or teacher in place; compute on copies")


def says_what_it_needs(path: Path) -> None:
    """`needs` has all that is read of the teacher, and no more: the teacher computes nothing else."""
    built, size = path.build(), SIZES[0]
    student, taught, batch = output(STUDENT, 2, size, 1), output(WIDER, 2, size, 2), batch_of(2, size)
    require(bool(built.needs), "`needs` is empty; name what it reads of the teacher")
    only = SegOutput(None, (), ())._replace(**{part: getattr(taught, part) for part in built.needs})
    whole = built(batch, student, taught).item()
    require(built(batch, student, only).item() == whole, "`needs` lacks something that it reads of the teacher")
    poisoned = each(taught, lambda t: torch.full_like(t, torch.nan))
    for part in sorted(EVERYTHING):
        loss = built(batch, student, taught._replace(**{part: getattr(poisoned, part)}))
        reads, listed = bool(loss.isnan().item()), part in built.needs
        require(
            reads == listed,
            f"`needs` {'has' if listed else 'lacks'} {part}, which it {'reads' if reads else 'does not read'}",
        )


def is_a_mean_over_samples(path: Path) -> None:
    """The loss of a batch is the mean of those of its groups of `norm_batch`, whatever micro-batches are."""
    size, dtype, tolerance = SIZES[0], torch.float64, 1e-12
    if not _takes_doubles(path):
        dtype, tolerance = torch.float32, 1e-4
    built = path.build().to(dtype)
    set_norm_batch(built, 2)
    image, label, keys = _drawn(4, size)
    student, taught = (each(output(c, 4, size, s), lambda t: t.to(dtype)) for c, s in ((STUDENT, 1), (WIDER, 2)))

    def loss_of(rows: list[int]) -> float:
        picked = Batch(image.to(dtype)[rows], label[rows], keys[rows])
        return built(picked, each(student, lambda t: t[rows]), each(taught, lambda t: t[rows])).item()

    whole, parts = loss_of([0, 1, 2, 3]), (loss_of([0, 1]) + loss_of([2, 3])) / 2
    require(
        math.isclose(whole, parts, rel_tol=tolerance),
        f"the loss depends on the micro-batch: {whole:.6g} of 4 samples, but {parts:.6g} as the mean of two halves; "
        "average over samples, and relate samples only within groups of norm_batch",
    )
    turned = loss_of([3, 2, 0, 1])
    require(math.isclose(whole, turned, rel_tol=tolerance), "the loss depends on the order of the samples")


def _takes_doubles(path: Path) -> bool:
    """Whether a path computes in float64, as ours do; one that converts its inputs to float32 need not."""
    size = SIZES[0]
    student, taught = (each(output(c, 2, size, 1), Tensor.double) for c in (STUDENT, WIDER))
    try:
        return path.build().double()(batch_of(2, size), student, taught).dtype == torch.float64
    except RuntimeError:
        return False


def computes_in_bfloat16(path: Path) -> None:
    """Under autocast, bfloat16 inputs give a finite float32 loss near that of float32."""
    built, size = path.build(), SIZES[0]
    student, taught, batch = output(STUDENT, 4, size, 1, grad=True), output(WIDER, 4, size, 2), batch_of(4, size)
    full = built(batch, student, taught)
    with torch.autocast("cpu", torch.bfloat16):
        loss = built(batch, each(student, Tensor.bfloat16), each(taught, Tensor.bfloat16))
    require(loss.dtype == torch.float32, f"with bfloat16 inputs the loss is {loss.dtype}; convert them by .float()")
    loss.backward()
    near = math.isclose(loss.item(), full.item(), rel_tol=0.02)
    require(near, f"with bfloat16 inputs the loss is {loss.item():.6g}, and {full.item():.6g} in float32")
    finite = all(p.grad.isfinite().all() for p in built.parameters() if p.grad is not None)
    require(finite, "with bfloat16 inputs a gradient is not finite")


def is_deterministic(path: Path) -> None:
    """Equal inputs give equal losses, torch's random numbers are left alone, and nothing is remembered of a call."""
    built, size = path.build().train(), SIZES[0]
    inputs = batch_of(4, size), output(STUDENT, 4, size, 1), output(WIDER, 4, size, 2)
    state = torch.random.get_rng_state()
    one, other = (copy.deepcopy(built)(*inputs).item() for _ in range(2))
    drawn = not torch.equal(state, torch.random.get_rng_state())
    remedy = "; draw from trainer.rng by the batch's keys, or not at all"
    require_first(not drawn, f"it draws from torch's random numbers, which seeds do not pair{remedy}")
    require_first(one == other, f"equal inputs give the losses {one:.9g} and {other:.9g}{remedy}; {FORGET}")
    changed = remembered(built, lambda: built(*inputs))
    require_first(not changed, f"each call changes its {', '.join(changed)}; {FORGET}")


def restores_from_its_state(path: Path) -> None:
    """A state dict holds all that a path has learned; another seed draws other weights."""
    size = SIZES[0]
    inputs = batch_of(2, size), output(STUDENT, 2, size, 1), output(WIDER, 2, size, 2)
    first, second = path.build(seed=0).eval(), path.build(seed=1).eval()
    drawn = any(p.ndim > 1 for p in first.parameters())
    differ = first(*inputs).item() != second(*inputs).item()
    require(differ == drawn, "its weights do not depend on the seed; draw them from torch's random numbers in __init__")
    second.load_state_dict(first.state_dict(), strict=True)
    same = first(*inputs).item() == second(*inputs).item()
    require(same, "after load_state_dict the loss is another; keep what it learns in parameters and buffers")


def works_on_the_meta_device(path: Path) -> None:
    """`plan` builds a path without memory, and runs it once."""
    size = SIZES[0]
    with torch.device("meta"):
        built = path.build()
    here = [name for name, p in built.named_parameters() if not p.is_meta]
    require(not here, f"on the meta device its parameter {', '.join(here)} is on another; create it without a device")
    batch = Batch(*(t.to("meta") for t in _drawn(2, size)))
    student, taught = (each(output(c, 2, size, 1), lambda t: t.to("meta")) for c in (STUDENT, WIDER))
    loss = built(batch, student, taught)
    require(loss.is_meta and loss.shape == (), "on the meta device its loss is no scalar of that device")


def documents_its_options(path: Path) -> None:
    """Options are keyword-only, have defaults, and stand in the class's docstring as `name`."""
    factory = DISTILLERS[path.name]
    documentation = inspect.getdoc(factory) or ""
    for option, parameter in inspect.signature(factory).parameters.items():
        if option not in ("student", "teacher"):
            by_name = parameter.kind is parameter.KEYWORD_ONLY
            require(by_name, f"its option {option} must be keyword-only: write `*, {option}: ... = ...`")
            require(parameter.default is not parameter.empty, f"its option {option} has no default; give one")
            require(f"`{option}`" in documentation, f"its docstring does not name the option `{option}`")


CHECKS: Checks[Path] = {
    "a scalar loss, whose gradient reaches the student and never the teacher": gives_a_loss_with_a_gradient,
    "equal inputs give equal losses": is_deterministic,
    "needs says what it reads of the teacher": says_what_it_needs,
    "micro-batches do not change the loss": is_a_mean_over_samples,
    "bfloat16 inputs give a float32 loss": computes_in_bfloat16,
    "a state dict restores it, and seeds name its weights": restores_from_its_state,
    "works on the meta device": works_on_the_meta_device,
    "options have defaults and are documented": documents_its_options,
}
