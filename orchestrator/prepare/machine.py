"""This machine: its CPUs and GPUs, as far as this process may use them, and why it may not."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from cluster.machine_types import Machine
from cluster.spec import ClusterSpec
from trainer.config import TrainConfig, message_of, missing


def here(*, with_gpus: bool = True) -> Machine:
    """This machine's CPUs and GPUs, as far as this process may use them; counting GPUs takes torch, and seconds.
    Without torch no process can use one."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not with_gpus or missing("torch"):
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


def slow_bf16(given: Iterable[tuple[ClusterSpec, TrainConfig]]) -> str:
    """The warning for runs in bf16 on this machine's CPUs where these have no instructions for it; "" elsewhere.
    `given`: the config of each run, with the spec of what it is given."""
    configs = [config for spec, config in given if spec.address == "local" and not spec.gpus_per_worker]
    if all("bf16" not in (config.optim.precision, config.teacher_precision) for config in configs):
        return ""
    import torch

    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return ""
    return "this CPU has no instructions for bf16: torch emulates them, ten times slower than precision: fp32"


class Gpus(NamedTuple):
    """The GPUs of a machine, as NVIDIA's driver and as torch see them."""

    names: tuple[str, ...] = ()
    """Those that torch can use."""
    present: int = 0
    driver: str = ""
    """Its version; "" where there is none."""
    driver_cuda: str = ""
    """The latest CUDA that the driver knows."""
    torch_cuda: str = ""
    """The CUDA that torch was built for; "" for CPUs only."""
    error: str = ""
    """What torch says where it can use none."""


def gpus() -> Gpus:
    """What this machine has, whether or not torch can use it."""
    import torch

    error, names = "", tuple(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    if not names and torch.version.cuda:
        try:
            torch.cuda.init()
        except Exception as raised:
            error = message_of(raised)
    present, driver, cuda = _driver()
    return Gpus(names, max(present, len(names)), driver, cuda, torch.version.cuda or "", error)


def gpu_ids(indices: Iterable[int | str]) -> list[str]:
    """NVIDIA's ids of GPUs, which stay theirs in another slot; `GPU 0` where the driver does not answer."""
    import pynvml

    try:
        pynvml.nvmlInit()
        return [str(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(int(index)))) for index in indices]
    except (pynvml.NVMLError, ValueError):
        return [f"GPU {index}" for index in indices]


def _driver() -> tuple[int, str, str]:
    """The number of GPUs that NVIDIA's driver has, its version, and the latest CUDA that it knows."""
    import pynvml

    try:
        pynvml.nvmlInit()
        cuda = pynvml.nvmlSystemGetCudaDriverVersion()
        return (
            pynvml.nvmlDeviceGetCount(),
            str(pynvml.nvmlSystemGetDriverVersion()),
            f"{cuda // 1000}.{cuda % 1000 // 10}",
        )
    except pynvml.NVMLError:  # no driver, or one that does not answer
        return len([*Path("/dev").glob("nvidia[0-9]*")]), "", ""
