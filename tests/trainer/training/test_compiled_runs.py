"""A run whose step is compiled gives the numbers of an eager one; so do several workers. In a file of its own, as it
takes minutes: files are what the two processes of tests share out."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainer.training.loop import fit

Make = Callable[..., Any]


@pytest.mark.slow  # minutes
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_a_compiled_run_agrees_with_an_eager_one(
    tiny: Make, place: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The tolerance that docs/clusters.md states, over the eight steps of a run in float32."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "kernels"))
    monkeypatch.setenv(
        "TORCHINDUCTOR_DEBUG_COMPILE", "1"
    )  # without the optimisations of g++, which take twice the time
    config = tiny({"pea": {}})
    eager, compiled = (
        fit(config, place(name, compile=name == "compiled"), report=lambda *_: None) for name in ("eager", "compiled")
    )
    assert compiled["environment"]["compiled"] and not eager["environment"]["compiled"]
    assert compiled["run_id"] == eager["run_id"]
    for name in ("loss", "loss/ce", "loss/pea"):
        assert compiled["last"][name] == pytest.approx(eager["last"][name], rel=1e-3), name
    assert any((tmp_path / "kernels").rglob("*.so"))


IN_WORKERS = """
from pathlib import Path
from torch._dynamo.utils import counters
from trainer.config import parse
from trainer.data.stream import Stream
from trainer.place import Place
from trainer.training.build import build_distilled, open_data
from trainer.training.compiled import Compiler
from trainer.training.learner import Learner
from trainer.training.step import accumulate, parts

config, place = parse(job["config"]), Place(out_dir=Path(job["root"]), cache_dir=Path(job["root"]), device="cpu")
data = open_data(config, place)
losses = []
for compiler in (None, Compiler(backend="aot_eager")):
    distilled = build_distilled(config, None, data).train()
    learner = Learner(distilled, config.optim, config.distill, compiler)
    for step, host in enumerate(Stream(data.train, config, data.learn, rank, world).epoch(0)):
        for part in parts(host, None, learner.device, config.data.normalize, 2, len(data.classes)):
            accumulate(learner, part, config.optim.global_batch)
        learner.update(1e-3, step)
    losses.append(learner.drain()["loss"])
assert abs(losses[0] - losses[1]) < 1e-5 * losses[0], losses
assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"], counters
"""


@pytest.mark.slow
def test_a_worker_of_several_compiles_the_same_graph(recipe: Make, in_workers: Make, tmp_path: Path) -> None:
    in_workers(IN_WORKERS, {"config": recipe(), "root": str(tmp_path)})
