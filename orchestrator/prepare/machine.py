"""This machine: its CPUs and GPUs, as far as this process may use them."""

from __future__ import annotations

import os

from cluster.spec import Machine


def here(*, with_gpus: bool = True) -> Machine:
    """This machine's CPUs and GPUs, as far as this process may use them; counting GPUs takes torch, and seconds."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not with_gpus:
        return Machine(cpus)
    import torch

    return Machine(cpus, torch.cuda.device_count())


def gpu_name() -> str:
    """The maker's name of this machine's first GPU; "" where there is none."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""
