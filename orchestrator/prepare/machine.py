"""This machine: its CPUs and GPUs, as far as this process may use them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

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


def memory_bytes(gpus: float) -> float | None:
    """The memory of this machine, as far as this process may use it, or that of `gpus` of its GPUs (0.5: a half); None
    where it is unknown."""
    if gpus:
        import torch

        return min(gpus, 1.0) * torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None
    found = []
    with contextlib.suppress(OSError, ValueError):
        found.append(float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")))
    with contextlib.suppress(OSError, ValueError):  # the limit of a container; "max" where it has none
        found.append(float(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8")))
    return min(found, default=None)
