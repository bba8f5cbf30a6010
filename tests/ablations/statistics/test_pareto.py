"""A front holds the points that no other beats, and a table names it where arms cost differently."""

import math

import pytest

from ablations.statistics.pareto import arm_points, front, pareto_notes


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([], []),
        ([(1.0, 1.0)], [0]),
        ([(60.0, 5.0), (55.0, 3.0), (54.0, 4.0), (60.0, 6.0)], [0, 1]),
        ([(60.0, 5.0), (60.0, 5.0), (59.0, 5.0)], [0, 1]),
        ([(math.nan, 1.0), (50.0, 2.0), (40.0, math.nan)], [1]),
        ([(60.0, 5.0, 9.0), (60.0, 6.0, 8.0), (60.0, 6.0, 9.0)], [0, 1]),
    ],
)
def test_points(points, expected):
    assert front(points) == expected


def row(arm, mean, gmacs, params_m, latency_ms=None, role="arm"):
    return {
        "arm": arm,
        "role": role,
        "mean": mean,
        "gmacs": gmacs,
        "params_m": params_m,
        "latency_ms": latency_ms,
    }


ROWS = [
    row("teacher", 70.0, 60.0, 27.0, role="teacher"),
    row("small", 50.0, 1.0, 3.0, 9.0),
    row("wide", 49.0, 2.0, 2.0, 8.0),
    row("large", 60.0, 5.0, 9.0, 30.0),
    {"arm": "small", "again": True},
]


def test_each_cost_has_its_front_and_a_teacher_is_on_none():
    points = {point.arm: point for point in arm_points(ROWS)}
    assert set(points) == {"small", "wide", "large"}
    assert points["wide"].on == {"params_m", "latency_ms"}
    assert points["large"].on == points["small"].on == {"gmacs", "params_m", "latency_ms"}
    assert points["small"].costs == {"gmacs": 1.0, "params_m": 3.0, "latency_ms": 9.0}
    assert pareto_notes(ROWS) == [
        "Pareto front of accuracy against GMACs: small, large.",
        "Pareto front of accuracy against million parameters: wide, small, large.",
        "Pareto front of accuracy against ms: wide, small, large.",
    ]


def test_a_cost_that_is_not_known_of_every_arm_has_no_front():
    rows = [*ROWS, row("new", 55.0, 1.5, 2.5)]
    assert all("latency_ms" not in point.costs and "latency_ms" not in point.on for point in arm_points(rows))


def test_one_network_has_no_front_and_without_scores_there_is_none():
    assert pareto_notes([row("a", 50.0, 1.0, 3.0), row("b", 51.0, 1.0, 3.0)]) == []
    assert pareto_notes([row("a", math.nan, 1.0, 3.0), row("b", math.nan, 2.0, 4.0)]) == []


def test_a_point_holds_the_mean_and_two_arms_are_enough_for_a_front():
    rows = [row("cheap", 50.0, 1.0, 3.0), row("dear", 60.0, 2.0, 3.0)]
    assert [(point.arm, point.accuracy) for point in arm_points(rows)] == [("cheap", 50.0), ("dear", 60.0)]
    assert pareto_notes(rows) == ["Pareto front of accuracy against GMACs: cheap, dear."]
