"""The teacher in a run's id is the one that the run reads: a driver knows it by the plan, a worker by its file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ablations.study.plan import Run, expand
from ablations.study.schema import read
from cluster.spec import ClusterSpec
from orchestrator.prepare.jobs import Preparer
from orchestrator.store.folder import Store
from trainer.config import RunIds, UserError, parse, teacher_run
from trainer.files import checkpoint
from trainer.place import Place
from trainer.training import sources
from trainer.training.continued import continue_run
from trainer.training.loop import fit
from trainer.training.sources import SourceReader, run_id

Make = Callable[..., Any]
STUDY = """
name: taught
base:
  data: {name: scenes, size: [32, 64], options: {train: 4, val: 2, size: [32, 64]}}
  student: {name: segformer_tiny}
  teacher: {name: segformer_mini, train: {epochs: 1}}
  optim: {lr: 1.0e-3, epochs: 2, global_batch: 2, schedule: reference}
  distill: {pea: {}}
variants:
  alone: {distill: {}}
  taught: {}
  fast: {optim.lr: 3.0e-3}
  longer: {optim.epochs: 3}
  decayed: {optim.weight_decay: 0.1, optim.schedule: to_end}
  larger batch: {optim.global_batch: 4}
  plain images: {data.augment: none, data.select: 0.25}
"""


def nothing(*_: object) -> None:
    """A report that nobody reads."""


class Lab:
    """A study in a store that has trained its teacher."""

    def __init__(self, root: Path) -> None:
        self.teacher, *self.arms = expand(read(STUDY, "taught"))
        self.preparer = Preparer("taught", ClusterSpec(), Store(root), {})
        job = self.preparer.job(self.teacher)
        self.preparer.teachers[self.teacher.key] = job.run_id
        self.teacher_id, self.folder = job.run_id, job.place.out_dir
        fit(self.teacher.config, job.place, report=nothing)

    def arm(self, name: str) -> Run:
        """The run of an arm."""
        return next(run for run in self.arms if run.arm == name)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("taught") / "store")


@pytest.fixture
def here(lab: Lab, tmp_path: Path) -> Callable[..., Place]:
    """here(teacher) -> the place of a run with this file for a teacher."""

    def make(teacher: Path | None = None) -> Place:
        return Place(tmp_path / "run", cache_dir=lab.preparer.store.cache, device="cpu", teacher=teacher)

    return make


@pytest.mark.slow
@pytest.mark.parametrize("numerics", [1, 2])
def test_a_worker_finds_the_id_that_the_driver_gave(lab: Lab, monkeypatch: pytest.MonkeyPatch, numerics: int) -> None:
    monkeypatch.setattr(sources, "NUMERICS_VERSION", numerics)
    driver = SourceReader(lab.preparer.place)
    for run in lab.arms:
        place = lab.preparer.job(run, "its folder").place
        assert run_id(run.config, place) == driver.run_id(run.config, run.key, run.teacher), run.arm


@pytest.mark.slow
def test_fit_records_the_drivers_id_and_the_teachers_run(lab: Lab) -> None:
    job = lab.preparer.job(lab.arm("decayed"))
    result = fit(job.run.config, job.place, report=nothing)
    assert result["run_id"] == job.run_id
    assert result["weights"]["teacher"]["run_id"] == lab.teacher_id
    assert fit(job.run.config, job.place, report=nothing) == result, "it is known as finished"


def test_without_a_teachers_file_the_config_says_which_run_trains_it(lab: Lab, here: Make) -> None:
    decayed = lab.arm("decayed").config
    reader = SourceReader(lambda _: here())
    assert run_id(decayed, here()) == reader.run_id(decayed, teacher=teacher_run(decayed))
    assert run_id(decayed, here()) != run_id(decayed, here(lab.folder / "last.pt"))
    taught = lab.arm("taught").config
    assert run_id(taught, here()) == run_id(taught, here(lab.folder / "last.pt"))


@pytest.mark.slow
def test_only_the_last_weights_of_a_finished_run_are_named_by_its_id(
    lab: Lab, here: Make, tmp_path: Path, teacher_weights: Path
) -> None:
    taught = lab.arm("taught").config
    last, best = lab.folder / "last.pt", lab.folder / "best.pt"
    expected = run_id(taught, here(last))
    assert run_id(taught, here(Path(shutil.copy(last, tmp_path / "elsewhere.pt")))) == expected
    state = checkpoint.load(last)
    bias = next(name for name in state["model"] if name.endswith("linear_pred.bias"))
    edited = {**state, "model": {**state["model"], bias: state["model"][bias] + 1}}
    others = [best, teacher_weights]
    for name, content in {"edited": edited, "not ended": {**state, "final_weights": ""}}.items():
        others.append(tmp_path / f"{name}.pt")
        checkpoint.save(others[-1], content)
    ids = {run_id(taught, here(path)) for path in others}
    assert len(ids) == len(others) and expected not in ids
    assert all(checkpoint.finished_run(path) == "" for path in others)


@pytest.mark.slow
def test_a_checkpoint_is_of_its_run_only_after_the_last_epoch_and_with_its_teacher(
    lab: Lab, here: Make, tmp_path: Path
) -> None:
    taught = lab.arm("taught").config
    place, seen = here(lab.folder / "last.pt"), []
    fit(taught, place, report=lambda metrics, path: seen.append(checkpoint.finished_run(path)))
    own = run_id(taught, place)
    assert seen == ["", own]
    with pytest.raises(UserError, match="was computed from other data, weights or numerics"):
        fit(taught, here(lab.folder / "best.pt"), report=nothing)

    longer = lab.arm("longer").config
    goes_on = Place(tmp_path / "longer", cache_dir=place.cache_dir, device="cpu", teacher=place.teacher)
    continue_run(place.out_dir, longer, goes_on)
    assert checkpoint.finished_run(goes_on.out_dir / "last.pt") == ""
    assert fit(longer, goes_on, report=nothing)["run_id"] == run_id(longer, goes_on) != own


def test_the_files_of_a_teacher_that_is_given_need_not_be_there(lab: Lab, here: Make, tmp_path: Path) -> None:
    recipe = {"name": "segformer_mini", "train": {"epochs": 1, "init": str(tmp_path / "gone.pt")}}
    config = parse({**lab.arm("taught").config.model_dump(mode="json"), "teacher": recipe})
    reader = SourceReader(lambda _: here())
    assert run_id(config, here(lab.folder / "last.pt")) == reader.run_id(config, teacher=lab.teacher_id)
    with pytest.raises(UserError, match=r"cannot read the weights .*gone\.pt"):
        run_id(config, here())


@pytest.mark.slow
def test_a_file_in_place_of_the_configs_checkpoint_enters_by_its_content(
    tiny: Make, lab: Lab, here: Make, tmp_path: Path, teacher_weights: Path
) -> None:
    config = tiny({"pea": {}})
    named = run_id(config, here())
    assert run_id(config, here(Path(shutil.copy(teacher_weights, tmp_path / "copy.pt")))) == named
    assert run_id(config, here(lab.folder / "last.pt")) != named
    assert run_id(tiny({}), here(lab.folder / "last.pt")) == run_id(tiny({}), here()), "no path reads a teacher"


def test_ids_of_a_reader_and_of_its_sources_are_equal(lab: Lab) -> None:
    reader = SourceReader(lab.preparer.place)
    ids = RunIds(reader.read(run.config for run in [lab.teacher, *lab.arms]))
    for run in [lab.teacher, *lab.arms]:
        assert reader.run_id(run.config, run.key, run.teacher) == ids.of(run.config, run.key, run.teacher)
