"""Every study that comes with the project loads, expands, and has only structures that can be built."""

import pytest

from ablations.plan import expand, space
from ablations.study import load, packaged
from trainer.build import check
from trainer.config import parse


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def test_there_are_studies():
    assert {"demo", "demo_search", "camvid_modules", "cityscapes_modules"} <= set(packaged())


@pytest.mark.parametrize("name", packaged())
def test_a_study_is_called_as_its_file_and_compares_with_a_baseline(name):
    study = load(name)
    assert study.name == name
    if study.search is None:
        assert study.pairs
        assert len(study.compared.overrides) > 1
    else:
        assert space(study)


@pytest.mark.slow
@pytest.mark.parametrize("name", packaged())
def test_every_structure_of_a_study_can_be_built(name, cache):
    study = load(name)
    configs = [run.config for run in expand(study) if run.seed == study.seeds[0] or run.role == "teacher"]
    for config in [parse(study.base), *configs]:
        cost = check(config, cache)
        assert cost["params_m"] > 0 and cost["gmacs"] > 0
