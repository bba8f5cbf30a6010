"""How busy the machine is while a run trains: CPU, memory and GPU, once an epoch, under MLflow's own names.

MLflow shows metrics below `system/` on a page of their own, and its monitor (mlflow/system_metrics) names them; but it
watches the process that talks to MLflow, and runs train elsewhere. Where psutil or nvidia-ml-py is not installed, what
they would tell is left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

EVERY_S = 1.0
"""Samples are taken no more often: NVIDIA's own utilisation is a mean over up to a second."""
MB = 1e6
"""MLflow's megabyte."""

Readers = dict[str, Callable[[], float]]


class SystemMonitor:
    """Samples what a run's machine is doing; `epoch` tells it, and begins anew."""

    def __init__(self, device: torch.device) -> None:
        self._readers = _of_machine() | _of_gpu(device)
        self._samples: list[dict[str, float]] = []
        self._read()  # what psutil says first is of no interval
        self._next = time.monotonic() + EVERY_S

    def sample(self) -> None:
        """Look, unless it was done a moment ago; to be called after every step."""
        if time.monotonic() >= self._next:
            self._samples.append(self._read())
            self._next = time.monotonic() + EVERY_S

    def epoch(self) -> dict[str, float]:
        """`system/...` since the last call: means of utilisation, peaks of memory."""
        samples, self._samples = self._samples or [self._read()], []
        found = {}
        for name in self._readers:
            values = [sample[name] for sample in samples]
            found[f"system/{name}"] = round(max(values) if "memory" in name else sum(values) / len(values), 1)
        return found

    def _read(self) -> dict[str, float]:
        """A reader that fails (no nvidia-ml-py, an error of NVML's own) is left out from then on: no run ends by it."""
        found = {}
        for name, read in list(self._readers.items()):
            try:
                found[name] = read()
            except Exception:
                del self._readers[name]
        return found


def _of_machine() -> Readers:
    try:
        import psutil
    except ImportError:
        return {}
    process = psutil.Process()
    return {
        "cpu_utilization_percentage": psutil.cpu_percent,
        "system_memory_usage_megabytes": lambda: psutil.virtual_memory().used / MB,
        "system_memory_usage_percentage": lambda: psutil.virtual_memory().percent,
        "process_memory_usage_megabytes": lambda: process.memory_info().rss / MB,
    }


def _of_gpu(device: torch.device) -> Readers:
    """The run's own GPU, its `gpu_0`, whichever of the machine's it is. A slice of one (MIG) tells no utilisation."""
    if device.type != "cuda":
        return {}

    def used() -> float:
        free, total = torch.cuda.mem_get_info(device)
        return (total - free) / MB

    return {
        "gpu_0_memory_usage_megabytes": used,
        "gpu_0_utilization_percentage": lambda: float(torch.cuda.utilization(device)),
    }
