"""The contract of a network: each check takes a Network and raises ContractError.

Letters: N samples, K classes, H and W input height and width, i stage, s_i its stride.
"""

from __future__ import annotations

import functools
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer import rng
from trainer.config import ModelConfig
from trainer.contract.memory import FORGET, remembered
from trainer.contract.promise import Checks, require, require_first
from trainer.models import MODELS, build_model
from trainer.models.base import EVERYTHING, SegModel, SegOutput
from trainer.models.norm import GroupedBatchNorm2d, set_norm_batch
from trainer.models.shapes import output_flaw

CLASSES = 7
ODD = (36, 68)
SIZES = ((32, 32), ODD, (64, 96))
KEYS = torch.tensor([3, 1 << 40, -5, 77])
PART_SETS = (*(frozenset({part}) for part in sorted(EVERYTHING)), frozenset({"features", "embeds"}))


@dataclass(frozen=True)
class Network:
    """A network by name."""

    name: str

    def build(self, seed: int = 0, **rates: float) -> SegModel:
        """The network with K classes, initialised by seed."""
        with rng.initialising(seed, "student"):
            return build_model(ModelConfig(name=self.name, **rates), CLASSES)

    def on_meta(self) -> SegModel:
        """The network without numbers, in evaluation mode."""
        return _on_meta(self.name, MODELS.get(self.name))


@functools.lru_cache(maxsize=64)  # nothing changes it: it has no numbers
def _on_meta(name: str, builder: object) -> SegModel:
    """`builder` is that of the name: another plugin may give the name to another network."""
    with torch.device("meta"):
        return build_model(ModelConfig(name=name), CLASSES).eval()


def image_like(model: nn.Module, size: tuple[int, int], n: int = 2) -> Tensor:
    """n random images (n, 3, H, W) on the model's device."""
    device = next(model.parameters()).device
    if device.type == "meta":
        return torch.empty(n, 3, *size, device=device)
    return torch.rand(n, 3, *size, generator=torch.Generator().manual_seed(0))


def parts(out: SegOutput) -> list[Tensor]:
    """All parts of an output."""
    return [part for part in (out.logits, *out.features, *out.embeds) if part is not None]


def has_the_published_shapes(model: SegModel, size: tuple[int, int]) -> None:
    """Logits at a quarter of the input, four stages with the widths and strides that `channels` names."""
    image = image_like(model, size)
    out = model(image)
    flaw = output_flaw(out, model, image, CLASSES)
    require_first(not flaw, flaw)
    finite = image.is_meta or all(bool(part.isfinite().all()) for part in parts(out))
    require_first(finite, "its outputs are not finite; look for divisions by zero and logarithms")


def has_shapes(one: Network) -> None:
    """`has_the_published_shapes` at three sizes."""
    model = one.build().eval()
    for size in SIZES:
        has_the_published_shapes(model, size)


def works_on_the_meta_device(one: Network) -> None:
    """`plan` builds a network without memory, and runs it once."""
    model = one.on_meta()
    here = [name for name, p in model.named_parameters() if not p.is_meta]
    require(not here, f"on the meta device its parameter {', '.join(here)} is on another; create it without a device")
    has_the_published_shapes(model, ODD)


@torch.no_grad()
def gives_parts_alone(one: Network, needs: AbstractSet[str]) -> None:
    """Parts that are asked for alone are the same, and no others are given."""
    model = one.build().eval()
    image = image_like(model, ODD)
    whole, part = model(image), model(image, None, needs)
    for field in sorted(EVERYTHING):
        value, expected = getattr(part, field), getattr(whole, field)
        if field not in needs:
            require(value is None or value == (), f"asked for {', '.join(sorted(needs))}, it gives {field} too")
            continue
        pairs = zip(*((v,) if isinstance(v, Tensor) else v for v in (value, expected)), strict=True)
        same = all(torch.equal(a, b) for a, b in pairs)
        require(same, f"asked for {', '.join(sorted(needs))} alone, its {field} are other than asked for everything")


def gives_all_parts_alone(one: Network) -> None:
    """`gives_parts_alone` of every set of parts that is asked for in training."""
    for needs in PART_SETS:
        gives_parts_alone(one, needs)


def learns_everywhere(one: Network) -> None:
    """Every parameter gets a finite gradient from the logits."""
    model = one.build().train()
    logits = model(image_like(model, (64, 96)), KEYS[:2]).logits
    classes = torch.arange(2 * 16 * 24).view(2, 16, 24) % CLASSES
    F.cross_entropy(logits, classes).backward()
    for path, parameter in model.named_parameters():
        grad = parameter.grad
        require(grad is not None, f"its parameter {path} gets no gradient; use it in forward or remove it")
        require(grad is None or bool(grad.isfinite().all()), f"the gradient of {path} is not finite")


@torch.no_grad()
def masks_follow_the_sample(one: Network) -> None:
    """What dropout and drop-path drop depends on the keys of the samples, not on the batch."""
    model = one.build(drop_path=0.5, dropout=0.5).double().train()
    for module in model.modules():
        if isinstance(module, GroupedBatchNorm2d):
            module.eval()  # the one thing that may couple samples
    image, order = image_like(model, (32, 64), n=4).double(), torch.tensor([2, 0])
    together, apart = model(image, KEYS), model(image[order], KEYS[order])
    near = all(
        torch.allclose(a[order], b, rtol=1e-9, atol=1e-12)
        for a, b in zip((together.logits, *together.features), (apart.logits, *apart.features), strict=True)
    )
    require(
        near,
        "in training a sample's output depends on the other samples; use the layers of trainer.models.masks for "
        "dropout, and GroupedBatchNorm2d (trainer.models.norm) for BatchNorm",
    )


@torch.no_grad()
def does_not_see_micro_batches(one: Network) -> None:
    """In groups of `norm_batch` samples, the outputs of a batch are those of its micro-batches."""
    model = one.build(drop_path=0.0, dropout=0.0).double().train()
    set_norm_batch(model, 2)
    image = image_like(model, (64, 96), n=4).double()
    whole = model(image, KEYS).logits
    split = torch.cat([model(image[rows], KEYS[rows]).logits for rows in (slice(0, 2), slice(2, 4))])
    require(
        torch.allclose(whole, split, rtol=1e-9, atol=1e-12),
        "micro-batches change its outputs; relate samples only in GroupedBatchNorm2d (trainer.models.norm)",
    )


@torch.no_grad()
def is_deterministic(one: Network) -> None:
    """In evaluation, equal images give equal logits, with and without keys; in training, with equal keys. A network
    remembers nothing else of its calls than BatchNorm's statistics."""
    model = one.build(drop_path=0.5, dropout=0.5).eval()
    image = image_like(model, (32, 64), n=4)
    first, second = model(image).logits, model(image, KEYS).logits
    require_first(torch.equal(first, second), "in evaluation equal images give different logits; drop nothing there")
    model.train()
    first, second = model(image, KEYS).logits, model(image, KEYS).logits
    require_first(
        torch.equal(first, second),
        "in training equal images with equal keys give different logits; use the layers of trainer.models.masks for "
        f"dropout, and {FORGET}",
    )
    changed = remembered(model, lambda: model(image, KEYS))
    require(not changed, f"each call changes its {', '.join(changed)}; {FORGET}")


def computes_in_bfloat16(one: Network) -> None:
    """Under autocast the logits are finite, near those of float32, and so are the gradients."""
    model = one.build(drop_path=0.0, dropout=0.0).train()
    image = image_like(model, (64, 96))
    with torch.no_grad():
        exact = model(image).logits
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(image).logits
    logits.float().square().mean().backward()
    require(bool((logits - exact).norm() < 0.05 * exact.norm()), "under bfloat16 autocast its logits are far off")
    finite = all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    require(finite, "under bfloat16 autocast a gradient is not finite")


@torch.no_grad()
def keeps_the_dtype(one: Network) -> None:
    """All parts have the dtype of the parameters, or of autocast."""
    model = one.build().train()
    image = image_like(model, (64, 96))
    for dtype in (torch.float32, torch.float64):
        found = {part.dtype for part in parts(model.to(dtype)(image.to(dtype), KEYS[:2]))}
        require(found == {dtype}, f"with parameters in {dtype} its outputs are {_listed(found)}; make no others")
    with torch.autocast("cpu", torch.bfloat16):
        found = {part.dtype for part in parts(model.float()(image, KEYS[:2]))}
    remedy = "pass features and embeds through trainer.models.base.as_autocast"
    require(found == {torch.bfloat16}, f"under bfloat16 autocast its outputs are {_listed(found)}; {remedy}")


def _listed(dtypes: set[torch.dtype]) -> str:
    return ", ".join(sorted(map(str, dtypes)))


@torch.no_grad()
def restores_from_its_state(one: Network) -> None:
    """The seed names the weights, and a state dict holds all of them."""
    first, same, other = one.build(), one.build(), one.build(seed=1)
    states = [model.state_dict() for model in (first, same, other)]
    equal = [all(torch.equal(states[0][key], state[key]) for key in states[0]) for state in states[1:]]
    require(equal[0], "one seed gives different weights; draw them from torch's random numbers alone")
    require(not equal[1], "its weights do not depend on the seed; draw them from torch's random numbers in __init__")
    other.load_state_dict(first.state_dict(), strict=True)
    image = image_like(first, (32, 64))
    restored = torch.equal(first.eval()(image).logits, other.eval()(image).logits)
    require(restored, "after load_state_dict its logits are other ones; keep what it learns in parameters and buffers")


CHECKS: Checks[Network] = {
    "shapes of logits, features and embeds": has_shapes,
    "equal images give equal logits": is_deterministic,
    "works on the meta device": works_on_the_meta_device,
    "parts asked for alone are the same": gives_all_parts_alone,
    "the gradient reaches every parameter": learns_everywhere,
    "micro-batches do not change the outputs": does_not_see_micro_batches,
    "dropout follows the sample": masks_follow_the_sample,
    "bfloat16 autocast": computes_in_bfloat16,
    "outputs have the dtype of the parameters": keeps_the_dtype,
    "a state dict restores it, and seeds name its weights": restores_from_its_state,
}
