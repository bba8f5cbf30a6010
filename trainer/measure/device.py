"""The torch device of a run: choose it by name, and wait for its kernels."""

from __future__ import annotations

import torch

from trainer.config import UserError


def pick_device(name: str) -> torch.device:
    """`auto` is this process's GPU if there is one. Raises UserError for a GPU that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device {name} asked for, but torch sees no CUDA GPU here; use --device cpu")
    try:
        return torch.device(name)
    except RuntimeError:
        raise UserError(f"unknown device '{name}'; give cpu, cuda, cuda:N or auto") from None


def synchronize(device: torch.device) -> None:
    """Wait for the kernels queued on a GPU; on a CPU there are none."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
