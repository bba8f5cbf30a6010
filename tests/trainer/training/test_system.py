"""The machine's use while a run trains, under the names that MLflow's own monitor gives it."""

import math
import mmap
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from trainer.training import system
from trainer.training.system import SystemMonitor

MACHINE = {
    "system/cpu_utilization_percentage",
    "system/system_memory_usage_megabytes",
    "system/system_memory_usage_percentage",
    "system/process_memory_usage_megabytes",
}


def test_an_epoch_is_told_by_numbers_that_can_be_true():
    watched = SystemMonitor(torch.device("cpu"))
    found = watched.epoch()
    assert found.keys() == MACHINE
    assert 0 <= found["system/cpu_utilization_percentage"] <= 100
    assert 0 < found["system/process_memory_usage_megabytes"] < found["system/system_memory_usage_megabytes"] * 10
    assert all(math.isfinite(value) for value in found.values())


def test_use_is_a_mean_memory_a_peak_and_an_epoch_begins_anew(monkeypatch):
    monkeypatch.setattr(system, "EVERY_S", 0.0)
    watched = SystemMonitor(torch.device("cpu"))
    end = time.process_time() + 0.3
    while time.process_time() < end:
        watched.sample()
    busy = watched.epoch()
    assert busy["system/cpu_utilization_percentage"] > 0
    # 67 MB of new pages: an allocator may take them from what other tests have freed
    with mmap.mmap(-1, 2**26, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:
        for page in range(0, len(held), mmap.PAGESIZE):
            held[page] = 1
        watched.sample()
    watched.sample()
    peak = watched.epoch()["system/process_memory_usage_megabytes"]
    assert peak > busy["system/process_memory_usage_megabytes"] + 50
    assert watched.epoch()["system/process_memory_usage_megabytes"] < peak - 50


def test_a_reader_that_fails_is_left_out_and_the_run_goes_on(monkeypatch):
    monkeypatch.setattr(system, "EVERY_S", 0.0)
    watched = SystemMonitor(torch.device("cpu"))
    watched.sample()
    monkeypatch.setitem(watched._readers, "cpu_utilization_percentage", lambda: 1 / 0)  # as NVML may in mid-run
    watched.sample()
    assert watched.epoch().keys() == MACHINE - {"system/cpu_utilization_percentage"}


def test_it_looks_no_more_than_once_a_second():
    watched = SystemMonitor(torch.device("cpu"))
    begin = time.process_time()
    for _ in range(10_000):
        watched.sample()
    assert time.process_time() - begin < 0.5, "a step is not to wait for it"


def test_mlflow_gives_them_the_same_names():
    monitor = pytest.importorskip("mlflow.system_metrics.metrics.cpu_monitor").CPUMonitor()
    monitor.collect_metrics()
    assert {f"system/{name}" for name in monitor.aggregate_metrics()} <= MACHINE


@pytest.mark.slow
def test_without_psutil_a_run_trains_and_tells_nothing():
    program = (
        "import sys; sys.modules['psutil'] = None\n"
        "import torch; from trainer.training.system import SystemMonitor\n"
        "watched = SystemMonitor(torch.device('cpu')); watched.sample(); print(watched.epoch())"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "{}\n"


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")
def test_a_gpu_is_told_of_too():
    found = SystemMonitor(torch.device("cuda")).epoch()
    assert found["system/gpu_0_memory_usage_megabytes"] > 0
    assert 0 <= found["system/gpu_0_utilization_percentage"] <= 100
