"""Which shapes the runs of a study have, and what no machine holds."""

import pytest

from ablations.study.schema import Study
from cluster.machine_types import Machine
from cluster.spec import ClusterSpec, SpecError
from orchestrator.prepare.room import at_once, refuse_unplaceable, specs_of, unused_overrides
from orchestrator.state.study_state import StudyState
from orchestrator.store.ledger import Ledger

BASE = {
    "student": {"name": "segformer_tiny"},
    "teacher": {"name": "segformer_mini", "train": {"epochs": 4}},
    "distill": {"csf": {}},
}


@pytest.fixture
def state(tmp_path):
    study = Study.model_validate({"name": "s", "base": BASE, "variants": {"alone": {"distill": {}}, "csf": {}}})
    return StudyState(study, Ledger(tmp_path / "ledger.jsonl"))


def test_the_shapes_of_a_study_are_those_of_its_roles_and_arms(state):
    spec = ClusterSpec(overrides={"teacher": {"gpus_per_worker": 1}, "csf": {"workers": 2}, "trial": {"workers": 3}})
    specs = specs_of(state, spec)
    assert list(specs) == [(1, 1, 1), (1, 1, 0), (2, 1, 0)], "it has no trials"
    assert at_once(specs, [Machine(8, 2)]) == {(1, 1, 1): 2, (1, 1, 0): 8, (2, 1, 0): 4}
    assert not unused_overrides(state, spec)
    misspelt = ClusterSpec(overrides={"csv": {"workers": 2}, "csf": {"workers": 2}})
    assert unused_overrides(state, misspelt) == "overrides not used: no run of s is of csv"


def test_a_range_of_workers_is_a_shape_of_its_own_of_which_as_many_fit_as_of_its_lower_number(state):
    spec = ClusterSpec(overrides={"teacher": {"workers": [2, 4]}, "csf": {"workers": 2}})
    assert at_once(specs_of(state, spec), [Machine(6)]) == {((2, 4), 1, 0): 3, (1, 1, 0): 6, (2, 1, 0): 3}


def test_a_run_that_needs_more_machines_than_may_be_is_refused(state):
    types = {"small": {"cpus": 2, "most": 3}, "gpu": {"cpus": 4, "gpus": 1, "most": 2}}
    needs = {"teacher": {"workers": 3, "gpus_per_worker": 1}}
    spec = ClusterSpec(address="auto", machine_types=types, overrides=needs)
    with pytest.raises(SpecError) as refused:
        refuse_unplaceable(state, spec)
    assert str(refused.value) == (
        "a run needs 3 GPUs (3 workers x 1) but there are 2; lower workers or gpus_per_worker, or raise most of a "
        "machine type"
    )
    refuse_unplaceable(state, spec.model_copy(update={"overrides": {}}))
