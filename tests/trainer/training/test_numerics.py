"""What a GPU rounds and repeats is set at the start of a run; what cannot be had is refused before anything else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from trainer.config import UserError, parse
from trainer.distill.losses import pool_by_products
from trainer.training.loop import fit
from trainer.training.numerics import check_workspace, described, set_up

Make = Callable[..., Any]
GPU = torch.device("cuda")


@pytest.fixture
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """torch's settings and the environment are as before afterwards."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that the fixture restores it
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    cudnn, matmul = torch.backends.cudnn, torch.get_float32_matmul_precision()
    before = cudnn.allow_tf32, cudnn.benchmark
    yield
    torch.set_float32_matmul_precision(matmul)
    cudnn.allow_tf32, cudnn.benchmark = before
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("_as_before")
def test_a_gpu_is_set_the_same_whatever_it_was_set_to_before() -> None:
    """torch keeps these settings without a GPU too."""
    for deterministic in (True, False, True):
        set_up("fp32", deterministic, GPU)
        assert described(GPU, None) == {
            "float32_matmul": "highest",
            "cudnn_tf32": False,
            "cudnn_benchmark": not deterministic,
            "deterministic": deterministic,
            "compiled": False,
        }


@pytest.mark.slow
def test_a_cpu_is_left_as_it_is(place: Make, tiny: Make) -> None:
    before = described(GPU, None)
    result = fit(tiny({}, {"optim.epochs": 1}), place(deterministic=True), report=lambda *_: None)
    assert described(GPU, None) == before
    assert result["environment"]["deterministic"]
    assert not result["environment"]["compiled"]
    assert json.loads((place().out_dir / "result.json").read_text())["environment"] == result["environment"]


def test_tf32_needs_a_gpu(place: Make, tiny: Make) -> None:
    with pytest.raises(UserError, match=r"^optim.precision tf32 needs a GPU of compute capability 8.0 or higher, but"):
        fit(tiny({}, {"optim.precision": "tf32"}), place(), report=lambda *_: None)
    assert not place().out_dir.exists()


def test_tf32_leaves_no_float32_to_the_teacher() -> None:
    teacher = {"name": "segformer_b2", "train": {"epochs": 1}}
    assert parse({"teacher": teacher, "optim": {"precision": "tf32"}}).teacher_precision == "tf32"
    with pytest.raises(UserError, match=r"fp32 cannot be had beside optim\.precision tf32"):
        parse({"teacher": {**teacher, "precision": "fp32"}, "optim": {"precision": "tf32"}})


def test_a_workspace_of_cublas_that_forbids_repetition_is_refused() -> None:
    check_workspace(":16:8")
    with pytest.raises(
        UserError, match=r"deterministic needs CUBLAS_WORKSPACE_CONFIG to be one of .* but it is ':0:0'"
    ):
        check_workspace(":0:0")


@pytest.mark.parametrize("size", [(12, 20), (7, 9), (5, 4)])
def test_pooling_by_products_is_torchs_pooling(size: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for side in (4, 2, 1):
        pooled = torch.nn.functional.adaptive_avg_pool2d(x, side)
        torch.testing.assert_close(pool_by_products(x, side), pooled, rtol=1e-12, atol=1e-12)
