"""Lint finds what would hang or cost money for nothing, one code each, and is silent about what is right."""

import pytest

from cluster.concurrency import concurrency
from cluster.lint import lint
from cluster.spec import ClusterSpec
from cluster.spec_file import load

SHARED = {"address": "auto", "store": "/mnt/shared/store"}


@pytest.mark.parametrize(
    ("name", "cpus", "gpus"),
    [("local", 2, 0), ("gpu", 16, 4), ("hosts", 0, 0), ("kuberay", 0, 0)],
)
def test_specs_that_come_with_the_project_are_clean(name, cpus, gpus):
    assert lint(load(name), cpus, gpus) == []


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_only_the_bucket_is_left_to_fill_in(name):
    spec = load(name)
    (finding,) = lint(spec, 0)
    assert (finding.code, finding.key) == ("placeholder", "store") and "fill-in-bucket" in finding.message
    filled = spec.store.replace("fill-in-bucket", "mine")
    assert lint(spec.model_copy(update={"store": filled}), 0) == []


@pytest.mark.parametrize(
    ("code", "fields", "cpus", "gpus"),
    [
        ("cannot-fit", {"workers": 3}, 2, 0),
        ("threads-exceed-cpus", {"threads": 8, "cpus_per_worker": 2}, 8, 0),
        ("gpus-unused", {}, 8, 2),
        ("gpus-starved", {"cpus_per_worker": 8, "gpus_per_worker": 1}, 16, 4),
        ("no-autoscaler", {"max_cpus": 64}, 2, 0),
        ("machine-unknown", {**SHARED, "max_cpus": 64}, 2, 0),
        ("data-missing", {"data_roots": {"camvid": "/no/such/folder"}}, 2, 0),
        ("store-not-shared", {"address": "auto"}, 2, 0),
        ("store-temporary", {"address": "auto", "store": "/tmp/store"}, 2, 0),
        ("store-temporary", {"address": "auto", "store": "/dev/shm"}, 2, 0),
        ("store-temporary", {"address": "auto", "store": "file:///tmp/store"}, 2, 0),
    ],
)
def test_each_mistake_has_its_code_and_a_remedy(monkeypatch, code, fields, cpus, gpus):
    monkeypatch.delenv("TRANSKD_STORE", raising=False)
    findings = lint(ClusterSpec(**fields), cpus, gpus)
    assert [finding.code for finding in findings] == [code]
    assert findings[0].message
    assert findings[0].remedy
    assert findings[0].key in ClusterSpec.model_fields


@pytest.mark.parametrize("name", ["gpu", "slurm"])
def test_a_spec_for_other_machines_is_not_held_to_this_one(monkeypatch, name):
    monkeypatch.setenv("TRANSKD_STORE", "/mnt/shared/store")
    assert lint(load(name), cpus=2) == []


def test_the_remedy_for_starved_gpus_feeds_them():
    starved = ClusterSpec(cpus_per_worker=8, gpus_per_worker=1)
    (finding,) = lint(starved, cpus=18, gpus=4)
    assert finding.remedy == "set cpus_per_worker: 4"
    assert concurrency(starved, 18, 4) == 2
    assert concurrency(ClusterSpec(cpus_per_worker=4, gpus_per_worker=1), 18, 4) == 4


def test_a_store_in_the_environment_is_shared(monkeypatch):
    monkeypatch.setenv("TRANSKD_STORE", "/mnt/shared/store")
    assert lint(ClusterSpec(address="auto"), 2) == []
