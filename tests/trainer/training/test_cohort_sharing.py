"""What runs side by side share is made once: batches, the teacher and its outputs, random masks; so is its time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

from tests.trainer.training.cohorts import Side, arms
from trainer import rng
from trainer.data.stream import Stream
from trainer.models.base import SegOutput
from trainer.training import shared
from trainer.training.teacher import Teacher

pytestmark = pytest.mark.slow

Make = Callable[..., Any]


def test_the_batch_and_the_teachers_output_are_made_once(
    tiny: Make, side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three epochs of four steps two have members with paths; one path reads logits, and ends after an epoch."""
    asked: list[frozenset[str]] = []
    made: list[int] = []
    call, assemble = Teacher.__call__, Stream._assemble

    def watched_call(self: Teacher, image: Tensor) -> SegOutput:
        asked.append(self.needs)
        return call(self, image)

    def watched_assemble(self: Stream, *given: Any) -> Any:
        made.append(1)
        return assemble(self, *given)

    monkeypatch.setattr(Teacher, "__call__", watched_call)
    monkeypatch.setattr(Stream, "_assemble", watched_assemble)
    configs = {
        "alone": tiny({}, {"optim.epochs": 3}),
        "pea": tiny({"pea": {}}),
        "csf": tiny({"csf": {}}),
        "kd": tiny({"kd": {}}, {"optim.epochs": 1}),
    }
    assert side.train(configs) == dict.fromkeys(configs)
    assert len(made) == 12
    assert asked == [frozenset({"embeds", "features", "logits"})] * 4 + [frozenset({"embeds", "features"})] * 4


def test_the_teacher_is_built_once_and_only_where_it_is_needed(
    tiny: Make, side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []
    build = shared.build_teacher
    monkeypatch.setattr(shared, "build_teacher", lambda *given: built.append(1) or build(*given))
    side.train({"one": tiny(), "two": tiny({}, {"optim.lr": 2e-3})})
    assert built == []
    side.train({"three": tiny({"pea": {}}), "four": tiny({"csf": {}}), "five": tiny()})
    assert built == [1]


def test_equal_networks_draw_their_masks_once(tiny: Make, side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    uniform = rng.uniform

    def watched(keys: Tensor, salts: Tensor, lanes: Tensor) -> Tensor:
        if not keys.is_meta:  # where the cost is counted
            drawn.append(len(salts))
        return uniform(keys, salts, lanes)

    monkeypatch.setattr(rng, "uniform", watched)
    more = {"optim.epochs": 1}
    configs = {
        "one": tiny({}, more),
        "two": tiny({"pea": {}}, more),
        "weights": tiny({}, {**more, "optim.lr": 2e-3}),
        "rate": tiny({}, {**more, "student.drop_path": 0.3}),
    }
    side.train(configs, micro_batch=2)
    assert len(drawn) == 2 * 2 * 4  # two networks, two micro-batches, four steps


def test_members_share_the_time_of_what_they_share(tiny: Make, side: Side) -> None:
    configs = arms(tiny, {"optim.epochs": 2, "eval.every": 1})
    started = time.monotonic()
    side.train(configs)
    wall = time.monotonic() - started
    results = [json.loads((side.root / name / "result.json").read_text()) for name in configs]
    assert all(result["seconds"] > 0 for result in results)
    assert sum(result["seconds"] for result in results) < wall
    for result in results:  # images a second of the run's part of the time
        assert 16 / result["last"]["images_per_s"] < result["last"]["seconds"]
