"""Use of CPU, memory and GPU while a run trains, reported once per epoch under MLflow's names of system metrics.

MLflow's own monitor (mlflow/system_metrics) would measure the process that talks to MLflow, which trains nothing.
Metrics of psutil and nvidia-ml-py are left out where these are not installed.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

EVERY_S = 1.0
"""Shortest time between samples: NVIDIA's utilisation is itself a mean over up to a second."""
MB = 1e6
"""Bytes in a megabyte, as MLflow counts."""

Readers = dict[str, Callable[[], float]]


class SystemMonitor:
    """Samples the use of a run's machine; `epoch` returns the summary since the last call."""

    def __init__(self, device: torch.device) -> None:
        self._readers = _of_machine() | _of_gpu(device)
        self._samples: list[dict[str, float]] = []
        self._read()  # psutil's first CPU value has no interval and is meaningless
        self._next = time.monotonic() + EVERY_S

    def sample(self) -> None:
        """Take a sample if EVERY_S have passed since the last one; called after every step."""
        if time.monotonic() >= self._next:
            self._samples.append(self._read())
            self._next = time.monotonic() + EVERY_S

    def epoch(self) -> dict[str, float]:
        """`system/...` since the last call: mean utilisation, peak memory."""
        samples, self._samples = self._samples or [self._read()], []
        found = {}
        for name in self._readers:
            values = [sample[name] for sample in samples]
            found[f"system/{name}"] = round(max(values) if "memory" in name else sum(values) / len(values), 1)
        return found

    def _read(self) -> dict[str, float]:
        """One sample. A reader that fails (no nvidia-ml-py, an NVML error) is dropped and does not fail the run."""
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
    """The GPU of `device`, always named `gpu_0`. A MIG slice has no utilisation."""
    if device.type != "cuda":
        return {}

    def used() -> float:
        free, total = torch.cuda.mem_get_info(device)
        return (total - free) / MB

    return {
        "gpu_0_memory_usage_megabytes": used,
        "gpu_0_utilization_percentage": lambda: float(torch.cuda.utilization(device)),
    }
