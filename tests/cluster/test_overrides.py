"""Runs of different sizes in one study, and machines of different types for them."""

from functools import partial
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.resource_demand_scheduler import _default_utilization_scorer, get_nodes_for

from cluster.concurrency import concurrency_on, grown, shape_of
from cluster.launchers.launcher_file import Launcher, MachineType
from cluster.launchers.lint_launcher import fits
from cluster.lint import lint
from cluster.machine_types import Machine, MachineKind, machines_for, started_for
from cluster.spec import ClusterSpec, SpecError, spec_of
from cluster.spec_file import load, with_workers

SPEC = """
address: auto
cpus_per_worker: 1
machine_types:
  small: {cpus: 1, most: 4, price_per_hour: 0.1}
  large: {cpus: 2, most: 2, price_per_hour: 0.2}
  gpu: {cpus: 4, gpus: 1, most: 1, price_per_hour: 2.0}
overrides:
  teacher: {gpus_per_worker: 1}
  wide: {cpus_per_worker: 2}
"""


@pytest.fixture
def given(tmp_path: Path):
    """given(text) -> the spec of a file with this text."""

    def write(text: str) -> ClusterSpec:
        (tmp_path / "spec.yaml").write_text(text, encoding="utf-8")
        return load(tmp_path / "spec.yaml")

    return write


def test_a_run_is_given_what_its_arm_states_before_what_its_role_does(given):
    spec = given(SPEC)
    assert shape_of(spec_of(spec, "arm", "narrow")) == (1, 1, 0)
    assert shape_of(spec_of(spec, "arm", "wide")) == (1, 2, 0)
    assert shape_of(spec_of(spec, "teacher", "teacher segformer_b2")) == (1, 1, 1)
    both = spec.model_copy(update={"overrides": {**spec.overrides, "teacher b2": spec.overrides["wide"]}})
    assert shape_of(spec_of(both, "teacher", "teacher b2")) == (1, 2, 1)
    assert spec_of(spec, "arm", "wide").torch_threads == 2


def test_an_override_may_give_a_range_whose_places_are_counted_with_the_lower_number(given):
    spec = given("overrides: {teacher: {workers: [2, 4]}, wide: {workers: [3, 3]}}")
    teacher = spec_of(spec, "teacher", "")
    assert shape_of(teacher) == ((2, 4), 1, 0) and concurrency_on(teacher, [Machine(9)]) == 4
    assert shape_of(spec_of(spec, "arm", "wide")) == (3, 1, 0)
    assert with_workers(spec, "1-8").overrides == spec.overrides
    with pytest.raises(
        SpecError, match=r"overrides.teacher.workers: must be a whole number, or the lower and the upper"
    ):
        given("overrides: {teacher: {workers: [4, 2]}}")
    with pytest.raises(
        SpecError, match=r"overrides.teacher: .*gpus_per_worker must be 0 or whole where workers is 1 to 4"
    ):
        given("gpus_per_worker: 0.5\noverrides: {teacher: {workers: [1, 4]}}")


def test_gpus_of_overrides_count_among_those_of_a_spec(given):
    assert given("overrides: {teacher: {gpus_per_worker: 1}}").most_gpus == 1
    assert given("gpus_per_worker: 0.5\noverrides: {alone: {gpus_per_worker: 0}}").most_gpus == 0.5
    assert given("workers: 2").most_gpus == 0


def test_a_spec_without_overrides_is_what_its_runs_are_given():
    spec = ClusterSpec(cpus_per_worker=3, concurrency=2)
    assert spec_of(spec, "teacher", "teacher b0") is spec


@pytest.mark.parametrize(
    ("cpus", "gpus", "types"),
    [(1, 0, ["small", "large"]), (2, 0, ["large"]), (3, 0, ["gpu"]), (1, 1, ["gpu"]), (5, 0, [])],
)
def test_machines_with_gpus_are_started_for_others_only_where_nothing_else_holds_them(given, cpus, gpus, types):
    assert started_for(given(SPEC).machine_types, cpus, gpus) == types


@pytest.mark.parametrize(
    ("worker", "workers", "machines"),
    [
        ((1, 0), 1, {"small": 1}),
        ((1, 0), 2, {"large": 1}),
        ((1, 0), 5, {"small": 1, "large": 2}),
        ((1, 0), 99, {"small": 4, "large": 2}),
        ((1, 0.25), 3, {"gpu": 1}),
        ((9, 0), 1, {}),
    ],
    ids=str,
)
def test_the_machines_that_ray_starts_for_workers_that_wait(given, worker, workers, machines):
    """A large machine that is full goes before small ones."""
    assert machines_for(given(SPEC).machine_types, *worker, workers) == machines


@pytest.mark.parametrize("workers", [1, 2, 3, 5, 7])
def test_they_are_those_of_rays_own_scheduler(given, workers):
    types = given(SPEC).machine_types
    scorer = partial(_default_utilization_scorer, node_availability_summary=None)
    kinds = {name: {"resources": _resources(kind), "max_workers": kind.most} for name, kind in types.items()}
    theirs, _ = get_nodes_for(kinds, {}, "head", 99, [{"CPU": 1}] * workers, scorer)
    assert machines_for(types, 1, 0, workers) == dict(theirs)


def _resources(kind: MachineKind) -> dict[str, float]:
    return {"CPU": kind.cpus} | ({"GPU": kind.gpus} if kind.gpus else {})


def test_as_many_runs_train_at_once_as_the_machines_started_for_them_hold(given):
    spec = given(SPEC)
    fit = {
        arm: concurrency_on(each, grown(each, [])) for arm in ("narrow", "wide") for each in [spec_of(spec, "arm", arm)]
    }
    teacher = spec_of(spec, "teacher", "")
    assert fit == {"narrow": 8, "wide": 2} and concurrency_on(teacher, grown(teacher, [])) == 1
    assert grown(spec_of(spec, "arm", "wide"), [Machine(8), Machine(2), Machine(0)]) == [Machine(8), *[Machine(2)] * 2]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "teacher: {gpus_per_worker: 1}",
            "teacher: {gpus_per_worker: 2}",
            "a worker of teacher needs 1 CPU and 2 GPUs, and none of machine_types holds it: small (1 CPU), large "
            "(2 CPUs), gpu (4 CPUs and 1 GPU); lower what it needs, or add a type",
        ),
        ("cpus_per_worker: 1\n", "cpus_per_worker: 5\n", "a worker needs 5 CPUs, and none of machine_types holds it"),
        ("{gpus_per_worker: 1}", "{gpu_per_worker: 1}", "unknown key; did you mean 'gpus_per_worker'?"),
        ("{gpus_per_worker: 1}", "{}", "overrides.teacher: states nothing; set one of workers, cpus_per_worker"),
        (
            "{gpus_per_worker: 1}",
            "{gpus_per_worker: 1.5}",
            "gpus_per_worker above 1 must be a whole number but got 1.5",
        ),
        ("most: 4, price", "price", "machine_types.small.most: field required"),
        (
            "address: auto",
            "address: auto\nmax_cpus: 4",
            "max_cpus is for machines of one kind; state cpus, gpus and most",
        ),
        (
            "address: auto",
            "address: auto\nprice_per_gpu_hour: 4",
            "price_per_gpu_hour is for machines of one kind; state price_per_hour of each of machine_types instead",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(given, old, new, said):
    assert old in SPEC
    with pytest.raises(SpecError) as refused:
        given(SPEC.replace(old, new))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_price_of_gpus_needs_runs_with_one(given):
    spec = given("price_per_gpu_hour: 2\noverrides: {teacher: {gpus_per_worker: 1}}\n")
    assert spec_of(spec, "arm", "a").price_per_gpu_hour is None or not spec.gpus_per_worker
    with pytest.raises(SpecError, match="price_per_gpu_hour is 2 but gpus_per_worker is 0"):
        given("price_per_gpu_hour: 2\noverrides: {teacher: {cpus_per_worker: 2}}\n")


def test_lint_looks_at_the_runs_of_every_override(given):
    spec = given("cpus_per_worker: 1\noverrides: {teacher: {cpus_per_worker: 9}}\n")
    assert [finding.code for finding in lint(spec, 4)] == ["cannot-fit"]
    assert lint(given(SPEC + "store: /mnt/store\n"), 4, 0) == []


def launcher(**changed: Machine) -> Launcher:
    """The launcher file of the spec above, but for machine types of another size."""
    sizes = {"small": Machine(1), "large": Machine(2), "gpu": Machine(4, 1), **changed}
    counts = {"small": 4, "large": 2, "gpu": 1}
    head = MachineType("head", Machine(0), 1, 1, head=True)
    return Launcher([head, *(MachineType(name, sizes[name], 0, counts[name]) for name in counts)], [], [])


def test_machine_types_are_held_to_the_launcher_file(given):
    spec = given(SPEC)
    assert list(fits(launcher(), spec)) == []
    (found,) = fits(launcher(large=Machine(3)), spec)
    assert (found.code, found.message) == ("machine-differs", "large has 2 CPUs in machine_types, the launcher 3 CPUs")
    (found,) = fits(launcher(), given(SPEC.replace("cpus: 2, most: 2", "cpus: 2, most: 3")))
    assert (found.code, found.message) == ("limits-differ", "most of large is 3 but the launcher starts up to 2")
    (found,) = fits(launcher(), given(SPEC.replace("  gpu:", "  a10:")))
    assert (found.code, found.message) == (
        "machine-differs",
        "machine_types has a10, and the launcher has small, large, gpu",
    )


def test_the_kinds_of_a_spec_are_read_as_they_are_written():
    kind = MachineKind.model_validate(yaml.safe_load("{cpus: 8, gpus: 1, most: 4}"))
    assert [kind.holds(3, 0), kind.holds(1, 0.5), kind.holds(1, 2), kind.holds(9, 0)] == [2, 2, 0, 0]
