"""What the tests of a store share: the path of a ledger, and trained runs to import."""

from __future__ import annotations

import shutil

import pytest

from ablations.study.plan import expand
from ablations.study.schema import read
from orchestrator.store.folder import Store


@pytest.fixture
def path(tmp_path):
    """Of a ledger that is not there, in a folder that is not there."""
    return tmp_path / "new folder" / "ledger.jsonl"


@pytest.fixture(scope="session")
def trained(tmp_path_factory, cache):
    """A folder with the three runs of `imported_runs.STUDY`, as `fit` leaves them: a teacher, a student alone, and a
    pupil."""
    from tests.orchestrator.store.imported_runs import STUDY, nothing
    from trainer.place import Place
    from trainer.training.loop import fit

    folder = tmp_path_factory.mktemp("trained")
    for run in expand(read(STUDY, "shared")):
        teacher = folder / "teacher segformer_mini" / "last.pt" if run.needs else None
        place = Place(out_dir=folder / run.arm, cache_dir=cache, device="cpu", teacher=teacher)
        fit(run.config, place, report=nothing)
    return folder


@pytest.fixture
def folder(trained, tmp_path):
    """A copy of the trained runs, to spoil."""
    shutil.copytree(trained, tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture
def store(tmp_path, cached):
    """An empty store."""
    return Store(cached(tmp_path / "store"))
