"""The estimate by machine type: machines, hours and money."""

import pytest

from cluster.spec import ClusterSpec
from orchestrator.prepare.estimate import START_S
from orchestrator.prepare.machine_hours import machine_hours, types_of
from orchestrator.terminal.cost import estimate_lines
from tests.orchestrator.prepare.earlier_runs import AROUND, CPU, SECONDS, make, of, record


def test_machines_hours_and_money_are_told_by_machine_type(store):
    """The arms train side by side, each on the machines that are started for it."""
    types = {
        "small": {"cpus": 1, "most": 4, "price_per_hour": 360},
        "large": {"cpus": 4, "most": 1, "price_per_hour": 720},
        "gpu": {"cpus": 4, "gpus": 1, "most": 1, "price_per_hour": 9999},
    }
    spec = ClusterSpec(address="auto", machine_types=types, overrides={"csf": {"cpus_per_worker": 2}})
    record(store, make(), CPU)
    found = of(make(), store, spec)
    alone, csf = 10 * SECONDS["student alone"] + AROUND, 10 * SECONDS["csf"] + AROUND
    assert found.hours.likely == pytest.approx((START_S + max(alone, csf)) / 3600)
    assert found.device_hours.likely == pytest.approx((alone + 2 * csf) / 3600)
    _, small, large, *_ = estimate_lines(found, spec)
    assert small == f" small: 1 machine at most, {alone / 3600:.2g} machine-hours; {alone / 10:.2g} at 360 an hour"
    assert large == f" large: 1 machine at most, {csf / 3600:.2g} machine-hours; {csf / 5:.2g} at 720 an hour"


def test_runs_that_share_a_machine_share_its_hours(store):
    record(store, make(seeds=5), CPU)
    types = {"small": {"cpus": 2, "most": 1}, "large": {"cpus": 3, "most": 9}}
    spec = ClusterSpec(address="auto", cohort="off", machine_types=types)
    found = machine_hours(of(make(seeds=5), store, spec).shares, spec.machine_types)
    hours = 4 * (10 * SECONDS["student alone"] + 10 * SECONDS["csf"] + 2 * AROUND) / 3600
    assert {name: need.machines for name, need in found.items()} == {"small": 1, "large": 2}, "8 runs: 2 and 3 + 3"
    assert sum(need.hours.likely for need in found.values()) == pytest.approx(hours * 3 / 8)
    assert {need.price for need in found.values()} == {None}


def test_the_one_type_of_an_autoscaler_is_named_by_its_size():
    spec = ClusterSpec(
        address="auto",
        gpus_per_worker=1,
        max_gpus=8,
        max_cpus=20,
        cpus_per_machine=5,
        gpus_per_machine=1,
        price_per_gpu_hour=2,
    )
    ((name, kind),) = types_of(spec).items()
    assert (name, kind.most, kind.price_per_hour) == ("5 CPUs and 1 GPU", 4, 2)
    assert types_of(ClusterSpec()) == {}
