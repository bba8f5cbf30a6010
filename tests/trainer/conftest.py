"""Fixtures of the trainer's tests: golden arrays, weights that no RNG has touched, and a run that takes a second."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trainer.cli import app, in_one_line, main
from trainer.config import ModelConfig, TrainConfig, override, parse
from trainer.files import checkpoint
from trainer.files.run_folder import CLOCK
from trainer.models import build_model
from trainer.place import Place
from trainer.rng import initialising
from trainer.training.loop import fit

Make = Callable[..., Any]
GOLDEN = Path(__file__).parents[1] / "golden"
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def golden() -> Callable[[str], dict[str, np.ndarray]]:
    """golden("mit_block") -> the arrays of tests/golden/mit_block.npz by their keys."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(GOLDEN / f"{name}.npz") as file:
            return {key: file[key] for key in file.files}

    return load


def _u01(k: int, n: int) -> np.ndarray:
    """n float64 numbers in [0, 1) of stream k: a 32-bit integer hash of the position, exact on every machine."""
    mask = np.uint64(0xFFFFFFFF)
    x = np.arange(n, dtype=np.uint64) * np.uint64(2654435761) + np.uint64((k * 40503 + 12345) % 2**32)
    x &= mask
    for _ in range(2):
        x ^= x >> np.uint64(16)
        x = (x * np.uint64(0x45D9F3B)) & mask
    x ^= x >> np.uint64(16)
    return x.astype(np.float64) / 2**32


def _uni(k: int, shape: tuple[int, ...]) -> Tensor:
    """Float32 in [0, 1)."""
    return torch.from_numpy(_u01(k, math.prod(shape)).reshape(shape).astype(np.float32))


def _sym(k: int, shape: tuple[int, ...], scale: float = 1.0) -> Tensor:
    """Float32 in [-scale, scale)."""
    values = (2.0 * _u01(k, math.prod(shape)) - 1.0) * scale
    return torch.from_numpy(values.reshape(shape).astype(np.float32))


def _entry(k: int, name: str, shape: tuple[int, ...]) -> Tensor | None:
    """Entry number k of a state dict; None for the counter that is kept."""
    scalars = {"atten_weight": 0.6, "conv_weight": 0.4}
    if name.endswith("num_batches_tracked"):
        return None
    if name.endswith("running_mean"):
        return _sym(k, shape, 0.1)
    if name.endswith("running_var"):
        return torch.from_numpy((1.0 + 0.5 * _u01(k, math.prod(shape))).reshape(shape).astype(np.float32))
    if name in scalars:
        return torch.full(shape, scalars[name])
    if name.startswith("fuse_weights."):
        return torch.full(shape, 0.1 * (int(name.split(".")[1]) + 1))
    if len(shape) >= 2:
        return _sym(k, shape, math.sqrt(3.0 / math.prod(shape[1:])))
    if name.endswith("weight"):
        return torch.from_numpy((1.0 + 0.1 * (2.0 * _u01(k, shape[0]) - 1.0)).astype(np.float32))
    return _sym(k, shape, 0.05)


@torch.no_grad()
def _model(model: nn.Module) -> nn.Module:
    """Fill every entry of `model.state_dict()` by its position and name."""
    for k, (name, tensor) in enumerate(model.state_dict().items()):
        value = _entry(k, name, tuple(tensor.shape))
        if value is not None:
            tensor.copy_(value)
    return model


@pytest.fixture
def fill() -> SimpleNamespace:
    """The fill rule of the golden files: u01(k, n), uni(k, shape), sym(k, shape), entry(k, name, shape), model(m)."""
    assert _u01(0, 4).tolist() == [0.40688223228789866, 0.4570922099519521, 0.13094620616175234, 0.8522593744564801]
    return SimpleNamespace(u01=_u01, uni=_uni, sym=_sym, entry=_entry, model=_model)


@pytest.fixture(scope="session")
def scenes_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for the session: scenes are painted once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def data_command() -> Callable[..., tuple[int, str, str]]:
    """data_command("make", "acdc", root) -> (exit code, stdout, stderr) of `python -m trainer data make acdc ROOT`."""

    def run(*arguments: str | int | Path) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end:
            in_one_line(lambda: app(["data", *(str(argument) for argument in arguments)]))
        return int(end.value.code or 0), out.getvalue(), err.getvalue()

    return run


@pytest.fixture(scope="session")
def teacher_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A segformer_mini that knows nothing: what a path compares with need not be wise."""
    with initialising(0, "a test's teacher"):
        model = build_model(ModelConfig(name="segformer_mini"), 19)
    path = tmp_path_factory.mktemp("teacher") / "mini.pt"
    checkpoint.save(path, {"model": model.state_dict()})
    return path


@pytest.fixture(scope="session")
def recipe(teacher_weights: Path) -> Callable[..., dict[str, Any]]:
    """recipe({"csf": {}}, {"optim.lr": 1e-4}) -> plain data of a run: 4 steps an epoch, BatchNorm in groups of 2."""

    def make(distill: dict[str, Any] | None = None, changes: dict[str, Any] | None = None) -> dict[str, Any]:
        data = {
            "data": {"name": "scenes", "size": [64, 128], "options": {"train": 16, "val": 5, "size": [64, 128]}},
            "student": {"name": "segformer_tiny"},
            "teacher": {"name": "segformer_mini", "checkpoint": str(teacher_weights)},
            "optim": {"lr": 1.0e-3, "epochs": 2, "global_batch": 4, "norm_batch": 2},
            "distill": distill or {},
        }
        return override(data, changes or {})

    return make


@pytest.fixture(scope="session")
def tiny(recipe: Callable[..., dict[str, Any]]) -> Callable[..., TrainConfig]:
    """The same as a TrainConfig."""

    def make(distill: dict[str, Any] | None = None, changes: dict[str, Any] | None = None) -> TrainConfig:
        return parse(recipe(distill, changes))

    return make


@pytest.fixture
def place(tmp_path: Path, scenes_cache: Path) -> Callable[..., Place]:
    """place("run", micro_batch=2) -> a Place on the CPU whose folder is tmp_path / "run"."""

    def make(name: str = "run", **changes: Any) -> Place:
        return Place(out_dir=tmp_path / name, **{"cache_dir": scenes_cache, "device": "cpu", **changes})

    return make


@pytest.fixture(scope="session")
def same_run() -> Callable[[Path, Path], None]:
    """same_run(out, other): weights, statistics, optimiser, record and result are equal; everything but the clock."""
    return _assert_same_run


def _assert_same_run(out: Path, other: Path) -> None:
    ours, theirs = (checkpoint.load(folder / "last.pt") for folder in (out, other))
    assert (ours["run_id"], ours["final_weights"]) == (theirs["run_id"], theirs["final_weights"])
    _assert_equal(ours["model"], theirs["model"])
    _assert_equal(ours.get("raw_student", {}), theirs.get("raw_student", {}))
    assert ours["optimiser"]["state"].keys() == theirs["optimiser"]["state"].keys()
    for index, state in theirs["optimiser"]["state"].items():
        _assert_equal(ours["optimiser"]["state"][index], state)
    lines = (out / "epochs.jsonl").read_text().splitlines()
    assert _without_clock([json.loads(line) for line in lines]) == _without_clock(theirs["history"])
    first, second = (json.loads((folder / "result.json").read_text()) for folder in (out, other))
    for result in (first, second):
        result["last"] = _without_clock([result["last"]])
        del result["seconds"], result["complexity"]["latency_ms"], result["environment"]["cohort"]
    assert first == second
    _assert_equal(*(checkpoint.load(folder / "best.pt")["model"] for folder in (out, other)))
    assert (out / "panel.png").read_bytes() == (other / "panel.png").read_bytes()


def _assert_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert list(ours) == list(theirs)
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name


def _without_clock(epochs: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in epoch.items() if not name.startswith(CLOCK)} for epoch in epochs]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], scenes_cache: Path) -> Make:
    """command("fit", ...) -> (exit code, stdout, stderr) of `python -m trainer` with these arguments."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setenv("TRANSKD_CACHE", str(scenes_cache))
        monkeypatch.setattr(sys, "argv", ["trainer", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        out, err = capsys.readouterr()
        return int(exit_.value.code or 0), out, err

    return run


@pytest.fixture(scope="session")
def finished(
    tiny: Callable[..., TrainConfig], scenes_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """finished({"optim.precision": "bf16"}) -> the folder of a run that has ended, trained once a session."""
    known: dict[str, Path] = {}

    def run(changes: dict[str, Any] | None = None) -> Path:
        config = tiny({}, {"eval.protocols": ["full", "paper"], **(changes or {})})
        if config.key not in known:
            known[config.key] = tmp_path_factory.mktemp("finished") / "run"
            place = Place(out_dir=known[config.key], cache_dir=scenes_cache, device="cpu")
            fit(config, place, report=lambda metrics, checkpoint: None)
        return known[config.key]

    return run


@pytest.fixture(scope="session")
def in_workers(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """in_workers(code, {...}) runs `code` in two processes of one gloo group, which find the dict as `job`."""

    def run(code: str, job: dict[str, Any], world: int = 2) -> None:
        meeting = tmp_path_factory.mktemp("gloo") / "meeting"
        environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", JOIN + code + LEAVE, str(rank), str(world), str(meeting), json.dumps(job)],
                cwd=REPOSITORY,
                env=environment,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(world)
        ]
        try:
            errors = [worker.communicate(timeout=400)[1] for worker in workers]
        finally:
            for worker in workers:
                worker.kill()
        assert [worker.returncode for worker in workers] == [0] * world, "\n".join(errors)

    return run


JOIN = """
import json, sys
from datetime import timedelta
import torch
import torch.distributed as dist
torch.set_num_threads(1)
rank, world, meeting, job = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
dist.init_process_group(
    "gloo", init_method=f"file://{meeting}", rank=rank, world_size=world, timeout=timedelta(minutes=5)
)
"""
LEAVE = """
dist.barrier()
dist.destroy_process_group()
"""
