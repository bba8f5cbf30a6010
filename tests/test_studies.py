"""Every study that comes with the project loads, expands, says what it costs, and can be built."""

import functools
import re
from importlib import resources
from pathlib import Path

import pytest

from ablations.study.metric import CONDITIONS
from ablations.study.plan import expand, space
from ablations.study.schema import load, packaged
from ablations.study.variant_search import searches
from cluster.spec_file import load as load_spec
from trainer.config import parse
from trainer.data import DATASETS
from trainer.distill import DISTILLERS
from trainer.measure import complexity
from trainer.training.build import check

SPECS = [file for file in sorted(Path("cluster").glob("*.yaml")) if "\nworkers:" in file.read_text()]
"""Cluster specs; the other files there are launchers'."""

AS_PUBLISHED = ("cityscapes_reproduction", "cityscapes_cirkd")
"""Studies with the BatchNorm groups of the publication, over the whole batch."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A folder for checks, and each student counted once: most arms of all studies deploy the same one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(complexity, "deployed", functools.cache(complexity.deployed))
        yield tmp_path_factory.mktemp("cache")


def text(name):
    return (resources.files("ablations.studies") / f"{name}.yaml").read_text()


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


@pytest.mark.parametrize("name", packaged())
def test_a_header_asks_a_question_and_says_what_plan_would_say_of_its_cost(name):
    study, header = load(name), text(name).split("\nname: ")[0]
    assert all(line.startswith("# ") for line in header.splitlines())
    assert re.match(r"# [A-Z][^\n]*\?  +Paper: ", header)
    assert f"Run: transkd run {name}" in header
    (cost,) = re.findall(r"^# Cost: (.*)", header, re.M)
    runs = expand(study)
    trials = sum(search.search.trials for search in searches(study).values())
    count = f"{len(runs)} run{'' if len(runs) == 1 else 's'}{f' and {trials} trials' if trials else ''}"
    assert cost.startswith(f"{count}, {sum(run.config.optim.epochs for run in runs)} epochs")


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("name", packaged())
def test_a_study_runs_with_any_number_of_workers_under_every_packaged_spec(name, workers):
    runs = expand(load(name))
    for spec in (load_spec(file) for file in SPECS):
        for optim in {run.config.optim for run in runs}:
            share, micro = optim.shares(workers, spec.micro_batch)
            assert micro == share and share * optim.workers(workers) == optim.global_batch


@pytest.mark.parametrize("name", [name for name in packaged() if "--cluster cluster/gpu.yaml" in text(name)])
def test_a_study_for_gpus_can_do_with_less_memory(name):
    """By smaller micro-batches: of the spec, and of retries after running out of memory."""
    whole = {run.arm for run in expand(load(name)) if len(run.config.optim.micro_batches(1)) == 1}
    assert all("groups of 8" in arm for arm in whole) or name in AS_PUBLISHED, whole


@pytest.mark.slow
def test_every_distiller_is_in_a_study():
    used = {path for name in packaged() for run in expand(load(name)) for path in run.config.distill}
    assert used == set(DISTILLERS)


def test_conditions_are_those_of_the_data_sets(tmp_path):
    given = {name: (tmp_path if dataset.needs_root else None, {}) for name, dataset in DATASETS.items()}
    given["scenes"] = None, {"train": 1, "val": 1}  # pictures that are made
    given["folder"] = tmp_path, {"classes": ["a", "b"], "holdout": {"val": 0.5}}
    official = {name: DATASETS[name](root, cache=tmp_path, **more).official for name, (root, more) in given.items()}
    assert {name: tuple(splits.conditions) for name, splits in official.items() if splits.conditions} == CONDITIONS


@pytest.mark.slow
@pytest.mark.parametrize("name", packaged())
def test_every_structure_of_a_study_can_be_built(name, cache):
    study = load(name)
    configs = [run.config for run in expand(study) if run.seed == study.seeds[0] or run.role == "teacher"]
    for config in [parse(study.base), *configs]:
        cost = check(config, cache)
        assert cost["params_m"] > 0 and cost["gmacs"] > 0
