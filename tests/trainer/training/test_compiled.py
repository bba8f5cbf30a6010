"""A compiled step is one graph a part and shape, traced once for all runs of a structure, and computes the same."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from trainer.compiler import check_compiler
from trainer.config import TrainConfig, UserError
from trainer.data.stream import Stream
from trainer.losses import LOSSES
from trainer.place import Place
from trainer.training.build import Data, build_distilled, build_teacher, open_data
from trainer.training.compiled import Compiler
from trainer.training.evaluation.evaluate import validate
from trainer.training.learner import Learner
from trainer.training.step import accumulate, parts
from trainer.training.teacher import Teacher

Make = Callable[..., Any]

TRACED = Compiler(backend="aot_eager")
"""Traces forward and backward as every backend does, and runs torch's own kernels: no C++ compiler is needed."""

COUNTED = Compiler(backend="eager")
"""Traces the same graphs, and leaves out their backward pass, which takes most of the time and makes no other graph."""

ODD = 3
"""Samples of a micro-batch of a global batch of 4: the last one has one sample."""

PATHS = {"csf": {"weight": 0.5}, "pea": {}}
OPTIM = {"optim.norm_batch": 1, "data.options": {"train": 8, "val": 5, "size": [64, 128]}}


@pytest.fixture
def graphs() -> Iterator[Callable[[], int]]:
    """graphs() is the number of graphs traced in this test so far. A graph break would be an error."""
    torch._dynamo.reset()
    counters.clear()
    yield lambda: counters["stats"]["unique_graphs"]
    assert not counters["graph_break"]


def train(
    config: TrainConfig, place: Place, compiler: Compiler | None, epochs: int = 2, micro: int = ODD
) -> list[dict[str, float]]:
    """The losses and validation of a run's epochs."""
    data: Data = open_data(config, place)
    model = build_teacher(config, place, len(data.classes))
    distilled = build_distilled(config, model, data)
    learner = Learner(distilled, config.optim, config.terms, compiler)
    teacher = None
    if model is not None:
        bf16 = config.teacher_precision == "bf16"
        teacher = Teacher(model, distilled.teacher_needs, bf16, compiler=compiler)
    stream, history = Stream(data.train, config, data.learn, 0, 1), []
    for epoch in range(epochs):
        distilled.train()
        for step, host in enumerate(stream.epoch(epoch)):
            for part in parts(host, teacher, learner.device, config.data.normalize, micro, len(data.classes)):
                accumulate(learner, part, config.optim.global_batch)
            learner.update(1e-3, step)
        history.append(learner.drain() | validate(distilled.student, data, config, learner.autocast))
    return history


@pytest.mark.slow  # loading the compiler takes ten seconds
def test_a_part_is_one_graph_a_shape_and_later_epochs_and_runs_trace_nothing(
    tiny: Make, place: Make, graphs: Callable[[], int]
) -> None:
    train(tiny(PATHS, OPTIM), place(), COUNTED, epochs=1)
    assert graphs() == 4  # teacher and student with paths, for micro-batches of three and of one
    train(tiny(PATHS, OPTIM), place(), COUNTED)
    train(tiny(PATHS, OPTIM | {"seed": 1, "optim.lr": 0.1}), place(), COUNTED)
    # runs of one process are in threads of their own
    thread = threading.Thread(target=train, args=(tiny(PATHS, OPTIM), place(), COUNTED))
    thread.start()
    thread.join()
    assert graphs() == 4
    train(tiny({"pea": {}}, OPTIM), place(), COUNTED, epochs=1)
    assert graphs() == 8


@pytest.mark.slow
def test_more_structures_than_torch_keeps_by_default(tiny: Make, place: Make, graphs: Callable[[], int]) -> None:
    structures = 5  # of two graphs each, and torch keeps eight
    for turn in range(2):
        for weight in range(1, structures + 1):
            train(
                tiny({"pea": {"weight": 1.0, "options": {"stage_weights": [0, 0, 0, weight]}}}, OPTIM),
                place(),
                COUNTED,
                1,
            )
        if not turn:
            first = graphs()
    assert first >= 2 * structures  # the teacher's graphs are the same
    assert graphs() == first


GRAPHS = Compiler("aot_eager", cuda_graphs=True)
EVERYTHING = {"loss": {name: {"weight": 0.5} for name in LOSSES}, "optim.clip_norm": 1.0, "optim.ema_decay": 0.9}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("compiler", "changes", "micro", "tolerance"),
    [
        (TRACED, {"optim.precision": "bf16"}, 2, 1e-2),
        (TRACED, {"teacher.precision": "bf16"}, 2, 1e-5),
        (TRACED, EVERYTHING, 2, 1e-4),
        (GRAPHS, {}, ODD, 1e-5),
        (GRAPHS, EVERYTHING | {"optim.precision": "bf16"}, 2, 1e-2),
    ],
    ids=["bf16", "fp32 with a bf16 teacher", "every task loss, clipped and averaged", "CUDA graphs", "all in them"],
)
def test_losses_and_validation_are_those_of_eager_mode(
    tiny: Make, place: Make, compiler: Compiler, changes: dict[str, Any], micro: int, tolerance: float
) -> None:
    config = tiny(PATHS, OPTIM | changes)
    eager, compiled = (train(config, place(), used, micro=micro) for used in (None, compiler))
    for ours, theirs in zip(compiled, eager, strict=True):
        for name in theirs:
            if name.startswith("loss"):
                assert ours[name] == pytest.approx(theirs[name], rel=tolerance), name


def test_no_compiler_is_told_before_anything_is_read(
    command: Make, recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    (tmp_path / "run.yaml").write_text(json.dumps(recipe()), encoding="utf-8")
    code, _, said = command("fit", tmp_path / "run.yaml", "--out", tmp_path / "run", "--compile", "--device", "cpu")
    assert (code, said.count("\n")) == (2, 1)
    assert "compile on cpu needs a C++ compiler, but CXX is 'no-such-compiler', which is no program here" in said
    assert not (tmp_path / "run").exists()


def test_what_a_gpu_needs_to_compile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CC", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="compile on cuda:1 needs a C compiler, but none of gcc, clang, cc is here"):
        check_compiler("cuda:1")
    with pytest.raises(
        UserError, match=r"needs a C\+\+ compiler, but none of g\+\+, clang\+\+, c\+\+ is here; install it"
    ):
        check_compiler("cpu")
