"""Costs in the table: their image convention and hardware, and which latencies are compared."""

from __future__ import annotations

import pytest

from ablations.study.plan import expand
from ablations.table.arms import build_table
from ablations.table.costs import ALL_PRODUCTS
from tests.ablations.table.finished_runs import ARMS, column, finished

NETWORKS = ARMS.replace("optim.epochs: 12", "student.name: segformer_b1")
COST = {"params_m": 3.719284, "gmacs_paper": 13.671, "gmacs": 9.214, "latency_ms": 8.0, "peak_mib": 301.6}


def _costs(runs, **changes) -> dict[str, dict]:
    return {run.key: COST | {"hardware": "cpu (x86_64)"} | changes for run in runs if run.role == "arm"}


def test_costs_say_their_image_convention_and_hardware(study):
    written = study(NETWORKS)
    runs = expand(written)
    table = build_table(written, runs, finished(runs), _costs(runs))
    assert column(table, "params (M)") == ["", "3.72", "3.72", "3.72"]
    assert column(table, "GMACs (paper)") == ["", "13.67", "13.67", "13.67"]
    assert column(table, "GMACs (all)") == ["", "9.21", "9.21", "9.21"]
    assert column(table, "ms") == ["", "8.0", "8.0", "8.0"]
    assert column(table, "MiB") == ["", "302", "302", "302"]
    assert table.explained[-3:] == (
        "GMACs (paper) are of one 96x192 image, by the paper's convention, which does not count attention products.",
        ALL_PRODUCTS,
        "ms and MiB are the median latency and the peak memory of one 96x192 image on cpu (x86_64).",
    )


def test_a_cost_that_two_decimals_would_hide_has_three_digits(study):
    written = study(NETWORKS)
    runs = expand(written)
    small = {key: {**cost, "params_m": 0.015, "gmacs": 0.0024812} for key, cost in _costs(runs).items()}
    table = build_table(written, runs, finished(runs), small)
    assert set(column(table, "params (M)")) == {"", "0.01"}
    assert set(column(table, "GMACs (all)")) == {"", "0.00248"}


def test_latency_is_the_median_of_an_arms_runs(study):
    written = study(NETWORKS)
    runs = expand(written)
    costs = _costs(runs)
    for run in runs:
        if run.arm == "Base":
            costs[run.key]["latency_ms"] = 100.0 if run.seed == 0 else 4.0 + run.seed
    assert build_table(written, runs, finished(runs), costs).rows[2].values["latency_ms"] == pytest.approx(8.5)


def test_latencies_of_several_machines_are_not_compared(study):
    written = study(NETWORKS)
    runs = expand(written)
    costs = _costs(runs)
    costs[runs[1].key]["hardware"] = "cuda:0 (a GPU)"
    table = build_table(written, runs, finished(runs), costs)
    assert "ms" not in [column.heading for column in table.columns]
    assert table.explained[-1] == (
        "Latency is left out, as rows were measured on different hardware: cpu (x86_64) and cuda:0 (a GPU)."
    )


def test_a_row_that_was_not_measured_leaves_latency_out_for_all(study):
    written = study(NETWORKS)
    runs = expand(written)
    costs = _costs(runs)
    del costs[runs[1].key]["latency_ms"]
    table = build_table(written, runs, finished(runs), costs)
    assert "ms" not in [column.heading for column in table.columns]
    assert column(table, "MiB")[1] == "302"


def test_latency_of_one_network_is_not_compared_with_itself(study):
    written = study(ARMS)
    runs = expand(written)
    costs = _costs(runs)
    costs[runs[1].key]["hardware"] = "cuda:0 (a GPU)"
    table = build_table(written, runs, finished(runs), costs)
    assert "ms" not in [column.heading for column in table.columns]
    assert table.explained[-1] == ALL_PRODUCTS
