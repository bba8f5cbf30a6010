"""The torch device of a run: choose it by name, and wait for its kernels."""

from __future__ import annotations

import torch

from trainer.config import UserError


def pick_device(name: str) -> torch.device:
    """The device of a name; `auto` is the GPU if there is one, else the CPU. Raises UserError for a missing GPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device {name} needs a CUDA GPU, but torch sees none; use --device cpu")
    try:
        return torch.device(name)
    except RuntimeError:
        raise UserError(f"unknown device '{name}'; give cpu, cuda, cuda:N or auto") from None


def synchronize(device: torch.device) -> None:
    """Wait for the kernels queued on a GPU; on a CPU there are none."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_name(device: torch.device) -> str:
    """The product name of a GPU, "" for a CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""
