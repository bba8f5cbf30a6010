"""The optimiser of a run: which parameters it has, and the weight decay and learning rate of each."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from trainer.config import OptimConfig, UserError
from trainer.models.base import SegModel

MOMENTUM = 0.9
"""Of SGD by default."""

STUDENT = "student."

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)

POSITIONS = ("pos_embed", "position_embedding", "relative_position", "pos_block")
"""Parts of the names of position embeddings, as in timm and mmsegmentation."""


def build_optimiser(module: nn.Module, optim: OptimConfig) -> tuple[torch.optim.Optimizer, list[float]]:
    """The optimiser of all parameters of `module` that are trained, and the factor of the learning rate of each of its
    groups. Raises UserError for a multiplier of a head that the student does not have."""
    check_head(module, optim)
    groups, factors = parameter_groups(module, optim)
    if optim.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=optim.lr, fused=True), factors
    momentum = MOMENTUM if optim.momentum is None else optim.momentum
    return torch.optim.SGD(groups, lr=optim.lr, momentum=momentum, fused=True), factors


def parameter_groups(module: nn.Module, optim: OptimConfig) -> tuple[list[dict[str, object]], list[float]]:
    """Groups of parameters with equal weight decay and factor of the learning rate, and these factors: by part in the
    order of the module, first what decays."""
    groups: dict[tuple[float, bool], list[Tensor]] = {}
    factors = {name: _factor(name, module, optim) for name, p in module.named_parameters() if p.requires_grad}
    for factor in dict.fromkeys(factors.values()):
        groups |= {(factor, True): [], (factor, False): []}
    for owner, name, parameter in _trained(module):
        groups[factors[name], _decays(owner, name, parameter, optim)].append(parameter)
    found = {key: params for key, params in groups.items() if params}
    decays = [optim.weight_decay if decays else 0.0 for _, decays in found]
    made = [{"params": params, "weight_decay": decay} for params, decay in zip(found.values(), decays, strict=True)]
    return made, [factor for factor, _ in found]


def _trained(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    """The parameters that are trained, each once: the module that it is of, its name, itself."""
    seen: set[int] = set()
    for prefix, owner in module.named_modules():
        for name, parameter in owner.named_parameters(recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                yield owner, f"{prefix}.{name}" if prefix else name, parameter


def _factor(name: str, module: nn.Module, optim: OptimConfig) -> float:
    """The factor of the learning rate of a parameter of a Distilled module, by its name."""
    if not name.startswith(STUDENT):
        return optim.lr_multipliers.distill
    return optim.lr_multipliers.head if _of_head(name, module) else optim.lr_multipliers.backbone


def _of_head(name: str, module: nn.Module) -> bool:
    student = module.get_submodule(STUDENT.rstrip("."))
    return isinstance(student, SegModel) and name.removeprefix(STUDENT).startswith(student.head_names)


def check_head(module: nn.Module, optim: OptimConfig) -> None:
    """Raise UserError for a multiplier of a head that the student of a Distilled module does not have."""
    if optim.lr_multipliers.head != 1 and not any(_of_head(name, module) for name, _ in module.named_parameters()):
        raise UserError(
            f"optim.lr_multipliers.head is {optim.lr_multipliers.head:g}, but the student has no parameters of a head; "
            "name its head in `head_names` of its class, or remove the multiplier"
        )


def _decays(owner: nn.Module, name: str, parameter: Tensor, optim: OptimConfig) -> bool:
    if optim.no_decay is None:
        return parameter.ndim > 1 or optim.decay_norms_and_biases
    is_norm = isinstance(owner, NORMS)
    kinds = {
        "norms": is_norm,
        "biases": name.split(".")[-1].endswith("bias") and not is_norm,
        "positions": any(part in name for part in POSITIONS),
    }
    return not any(kinds[kind] for kind in optim.no_decay)
