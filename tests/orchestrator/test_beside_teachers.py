"""While teachers train, runs that need none take the places that would be free."""

from __future__ import annotations

import pytest

from ablations.study.schema import read
from cluster.spec import ClusterSpec
from orchestrator.launch import Launch
from orchestrator.store.folder import Store

STUDY = """
name: one
base:
  data: {name: scenes, size: [64, 128], options: {train: 2, val: 1, size: [64, 128]}}
  student: {name: segformer_mini}
  teacher: {name: segformer_b0, train: {epochs: TEACHER}}
  optim: {epochs: 2, global_batch: 2, norm_batch: 1}
  distill: {pea: {}}
variants: {alone: {distill: {}}, taught: {}}
seeds: 6
"""


def launch(store: Store, teacher_epochs: int) -> Launch:
    """A launch that is prepared and never trains."""
    made = Launch(read(STUDY.replace("TEACHER", str(teacher_epochs)), "one"), ClusterSpec(), store, {})
    made.prepare(lambda text: None)
    return made


@pytest.fixture
def store(tmp_path, cached):
    return Store(cached(tmp_path / "store"))


def chosen(made: Launch, slots: int) -> list[str]:
    return [run.label for run in made.beside_teachers(slots)]


def test_they_fill_the_free_slots_in_the_order_of_the_plan_and_no_more(store):
    assert chosen(launch(store, 100), 2) == [f"alone seed {seed}" for seed in range(6)]
    few = chosen(launch(store, 1), 2)
    assert few == [f"alone seed {seed}" for seed in range(len(few))] and 0 < len(few) < 6


def test_with_no_free_slot_and_with_no_teacher_to_train_there_are_none(store):
    made = launch(store, 100)
    assert chosen(made, 1) == []
    (teacher,) = made.teachers
    made.ledger.append(made.job(teacher).event("finished", last={"epoch": 100.0, "val/miou": 50.0}))
    made.refresh()
    assert chosen(made, 2) == []
