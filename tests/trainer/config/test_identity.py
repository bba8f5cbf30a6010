"""Run ids: two runs share one only if all that they read is equal, the weights of their teacher included."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablations.study.plan import Run, expand
from ablations.study.schema import Study, read
from trainer.config import RunIds, Sources, data_key, digest, override, weight_names

STUDY = """
name: ids
base:
  data: {name: scenes, size: [32, 64]}
  student: {name: segformer_tiny}
  teacher: {name: segformer_mini, train: {epochs: 2, lr: 1.0e-3, init: teacher.pt}}
  optim: {epochs: 3, global_batch: 8, lr: 2.0e-3}
  distill: {csf: {}}
variants:
  alone: {distill: {}}
  taught: {}
  started: {student.init: backbone.pt}
  another teacher: {teacher.train.seed: 1}
  other data: {data.options: {train: 16}}
  bought: {teacher: {name: segformer_b0, checkpoint: bought.pt}}
  fast: {optim.lr: 3.0e-3}
  decayed: {optim.weight_decay: 0.1}
"""
GOLDEN = {
    1: [
        *("744997d67168", "8c97570b5235", "d409a1eccfab"),
        *("efaa30daea5a", "284b7ce85aea", "f381084d7875", "5640717d7f0c", "26b8e39fcde7", "274536bb5d7e"),
        *("0705681329c6", "306a5e152851"),
    ],
    2: [
        *("291536028923", "512ef7facaf7", "d08e431c7d08"),
        *("975ee2000afa", "4292bfe015c0", "142589fbea01", "6953f4e31bb7", "4780c253bb83", "fcf141fe7097"),
        *("833595194547", "897e3faa3df2"),
    ],
}
"""By numerics version, the ids of the three teachers and of the arms. Version 1 named the teacher of the last arm by
the arm's own recipe, which trains none of the three."""


def sources_of(runs: list[Run], numerics: int = 2) -> Sources:
    """Data and weights of runs, told apart by their names."""
    data = {data_key(run.config.data): (f"train of {data_key(run.config.data)}", "val") for run in runs}
    return Sources(numerics, data, {name: digest(name) for run in runs for name in weight_names(run.config)})


@pytest.mark.parametrize("numerics", GOLDEN)
def test_ids_are_those_of_earlier_commits(numerics: int) -> None:
    runs = expand(read(STUDY, "ids"))
    ids = RunIds(sources_of(runs, numerics))
    assert [ids.of(run.config, run.key, run.teacher) for run in runs] == GOLDEN[numerics]
    unsaid = [ids.of(run.config) for run in runs]
    assert unsaid[:-1] == GOLDEN[numerics][:-1], "these arms have the base's recipe, so their teacher need not be said"
    assert (unsaid == GOLDEN[numerics]) is (numerics == 1)


def test_an_id_needs_the_data_and_weights_of_the_teacher() -> None:
    runs = expand(read(STUDY, "ids"))
    whole = sources_of(runs)
    (fast,) = (run for run in runs if run.arm == "fast")
    lacking = RunIds(Sources(2, whole.data, {"backbone.pt": "x", "bought.pt": "x"}))
    assert lacking.of(fast.config, fast.key, fast.teacher) is None
    assert lacking.of(fast.config, fast.key, "0123456789ab"), "the id of its teacher's run is known"


LEARNING = {
    "optim.lr": [1.0e-3, 2.0e-3, 3.0e-3],
    "optim.epochs": [2, 3],
    "optim.global_batch": [4, 8],
    "optim.weight_decay": [0.0, 0.01],
    "data.size": [[32, 64], [64, 128]],
    "data.augment": ["none", "reference", ["flip"], [{"flip": {"probability": 0.25}}]],
    "data.options": [{"train": 8}, {"train": 16}],
}
TAUGHT = {"teacher.train.epochs": [1, 2], "teacher.train.lr": [1.0e-3, 5.0e-3], "teacher.train.seed": [0, 1]}
PATHS = {"distill": [{}, {"csf": {}}]}
BASE: dict[str, Any] = {
    "data": {"name": "scenes"},
    "student": {"name": "segformer_tiny"},
    "teacher": {"name": "segformer_mini", "train": {}},
    "distill": {"csf": {}},
}


def some(options: dict[str, list[Any]], most: int) -> st.SearchStrategy[dict[str, Any]]:
    """Values for a few of the paths."""
    one = st.sampled_from(sorted(options)).flatmap(
        lambda path: st.tuples(st.just(path), st.sampled_from(options[path]))
    )
    return st.lists(one, max_size=most).map(dict)


@st.composite
def plans(draw: st.DrawFn) -> list[list[Run]]:
    """Plans of one base, each of an arm that changes what it learns from."""
    base = override(BASE, draw(some({**LEARNING, **TAUGHT}, 3)), absent_ok=True)
    arms = draw(st.lists(some({**LEARNING, **TAUGHT, **PATHS}, 3), min_size=1, max_size=3))
    return [expand(Study.model_validate({"name": "s", "base": base, "variants": {"arm": arm}})) for arm in arms]


def reads(run: Run, plan: list[Run]) -> str:
    """All that a run reads: its config, and what the run reads that the plan has for its teacher."""
    taught = [reads(other, plan) for other in plan if other.role == "teacher" and other.key == run.needs]
    assert len(taught) == (run.config.teacher is not None)
    return json.dumps([run.config.model_dump(mode="json"), *taught])


@pytest.mark.slow
@given(plans(), plans())
def test_two_runs_share_an_id_only_if_all_that_they_read_is_equal(one: list[list[Run]], two: list[list[Run]]) -> None:
    ids = RunIds(sources_of([run for plan in one + two for run in plan]))
    read_by_id: dict[str | None, str] = {}
    ids_by_read: dict[str, str | None] = {}
    for plan in one + two:
        for run in plan:
            run_id, all_read = ids.of(run.config, run.key, run.teacher), reads(run, plan)
            assert run_id is not None
            assert read_by_id.setdefault(run_id, all_read) == all_read
            assert ids_by_read.setdefault(all_read, run_id) == run_id
