"""What is said of this machine before a study starts."""

import platform
from pathlib import Path

import pytest

from cluster.spec import ClusterSpec
from orchestrator.prepare.machine import slow_bf16
from trainer.config import parse


def config(**optim):
    return parse({"data": {"name": "scenes"}, "student": {"name": "segformer_tiny"}, "optim": optim})


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the instructions' names are those of x86")
def test_bf16_on_a_cpu_that_must_emulate_it_is_said_to_be_slow():
    emulated = "avx512bw" not in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    assert bool(slow_bf16((ClusterSpec(), each) for each in (config(), config(precision="bf16")))) is emulated


def test_nothing_is_said_of_fp32_of_gpus_and_of_machines_elsewhere():
    assert not slow_bf16([(ClusterSpec(), config())])
    assert not slow_bf16([(ClusterSpec(gpus_per_worker=1), config(precision="bf16")), (ClusterSpec(), config())])
    assert not slow_bf16([(ClusterSpec(address="auto"), config(precision="bf16"))])
