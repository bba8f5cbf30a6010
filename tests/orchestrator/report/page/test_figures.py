"""Figures: every arm is in them, bands hold their means, and what cannot be drawn is left out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ablations.statistics.pareto import Point
from ablations.study.trial import Trial
from orchestrator.report.page import classes, curves, forest, pareto, search
from orchestrator.report.page.classes import class_differences, class_means
from orchestrator.report.page.curves import curve, curves_figure
from orchestrator.report.page.forest import differences, forest_figure
from orchestrator.report.page.parallel import parallel_figure
from orchestrator.report.page.pareto import pareto_figure
from orchestrator.report.page.parts import label, rounded, style, whole_axis
from orchestrator.report.page.search import against_figure, history_figure, importance_figure
from orchestrator.store.ledger_run import LedgerRun


def run(*values):
    return LedgerRun("", epochs=[{"epoch": float(i + 1), "val/miou": value} for i, value in enumerate(values)])


def named(figure):
    return [trace.name for trace in figure.data if trace.name]


def test_a_curve_is_the_mean_within_its_band():
    found = curve([run(10.0, 20.0, 30.0), run(20.0, math.nan, 50.0), run(30.0)], "val/miou")
    assert found.epochs.tolist() == [1, 2, 3]
    assert found.mean.tolist() == [20.0, 20.0, 40.0]
    assert (found.low.tolist(), found.high.tolist()) == ([10.0, 20.0, 30.0], [30.0, 20.0, 50.0])
    assert found.seeds == 3


def test_a_metric_that_nobody_logged_has_no_curve():
    assert curve([run(1.0)], "loss/ce") is None
    assert curve([run(math.nan)], "val/miou") is None


def test_every_arm_has_a_line_and_a_band_that_holds_it(synthetic):
    report = synthetic().report
    figure = curves_figure(curves.curves(report, "val/miou"), "")
    assert named(figure) == [label(arm) for arm in (*report.arms, "teacher segformer_mini")]
    bands = {trace.legendgroup: trace.y for trace in figure.data if trace.fill}
    for line in (trace for trace in figure.data if trace.legendgroup in bands and not trace.fill):
        edges = bands[line.legendgroup]
        high, low = np.array(edges[: len(edges) // 2]), np.array(edges[len(edges) // 2 :][::-1])
        assert np.all(low <= np.array(line.y)) and np.all(np.array(line.y) <= high)


def test_one_seed_has_no_band():
    figure = curves_figure({"a": curve([run(1.0, 2.0)], "val/miou")}, "")
    assert [trace.fill for trace in figure.data] == [None]


def test_arms_are_told_apart():
    assert len({style(i) for i in range(28)}) == 28


def test_differences_are_those_of_the_table(synthetic):
    report = synthetic().report
    rows = differences(report)
    assert [(row.arm, row.reference) for row in rows] == list(report.study.pairs)
    for row in rows:
        assert row.mean == pytest.approx(np.mean(row.seeds))
        assert row.low <= row.mean <= row.high


def test_a_contrast_of_too_few_seeds_has_no_bar(synthetic):
    report = synthetic(ends={(arm, 5): "failed" for arm in ("student alone", "Base <both>")}).report
    rows = differences(report)
    assert [math.isinf(row.low) for row in rows] == [True, True]
    assert "Infinity" not in forest_figure(rows, None).to_json()


@pytest.mark.parametrize("most", [0, 1, 3, 9, 10, 11, 90, 1000, 12345])
def test_epochs_and_trials_have_whole_ticks(most):
    axis = whole_axis("epoch", [0, most])
    assert axis["dtick"] == int(axis["dtick"]) > 0
    assert most / axis["dtick"] <= 10


@pytest.mark.slow
def test_the_axes_of_epochs_and_trials_are_whole(synthetic):
    report, searched = synthetic().report, synthetic("search", "searched").report.searched[0]
    for figure in (
        curves_figure(curves.curves(report, "val/miou"), ""),
        search.history_figure(searched.trials, "select/miou"),
        search.curves_figure(searched),
    ):
        assert figure.layout.xaxis.dtick == int(figure.layout.xaxis.dtick)


def test_the_trials_of_a_search_have_curves_and_the_best_is_on_top(synthetic):
    searched = synthetic("search").report.searched[0]
    figure = search.curves_figure(searched)
    assert named(figure) == ["stopped", "finished", "best"]
    best = max((t for t in searched.trials if t.state == "finished"), key=lambda t: t.metrics["select/miou"])
    assert set(figure.data[2].customdata) - {None} == {best.number}
    drawn = {number for trace in figure.data for number in trace.customdata} - {None}
    assert drawn == {trial.number for trial in searched.trials if trial.epochs}


def test_the_forest_has_each_contrast_with_its_interval_and_margin(synthetic):
    report = synthetic().report
    rows = differences(report)
    figure = forest_figure(rows, report.study.margin)
    drawn = {
        text: (minus and x - minus, plus and x + plus)
        for trace in figure.data[1:]
        for text, x, minus, plus in zip(trace.text, trace.x, trace.error_x.arrayminus, trace.error_x.array, strict=True)
    }
    assert drawn.keys() == {f"{label(row.arm)} against {label(row.reference)}" for row in rows}
    for row in rows:
        limits = drawn[f"{label(row.arm)} against {label(row.reference)}"]
        assert limits == ((None, None) if math.isinf(row.low) else pytest.approx((row.low, row.high), rel=1e-4))
    (band,) = (shape for shape in figure.layout.shapes if shape.type == "rect")
    assert (band.x0, band.x1) == (-0.3, 0.3)
    assert not any(shape.type == "rect" for shape in forest_figure(rows, None).layout.shapes)


def test_classes_are_means_over_finished_seeds(synthetic):
    report = synthetic(ends={("student alone", 5): "running"}).report
    means = class_means(report)
    scores = list(report.scores["student alone"].values())
    assert len(scores) == 5
    assert means["road"]["student alone"] == pytest.approx(np.mean(scores) + 20)
    assert math.isnan(means["rider"]["student alone"])


def test_classes_differ_over_the_seeds_that_both_arms_have(synthetic):
    """The reference alone has one more seed, a low one, so by the means the rival would win."""
    report = synthetic("costs", ends={("mini", 1): None}).report
    for member in report.groups["tiny"]:
        member.run.last["val/iou/car"] = {0: 70.0, 1: 10.0}[member.plan.seed]
    report.groups["mini"][0].run.last["val/iou/car"] = 60.0
    means = class_means(report)["car"]
    assert (means["tiny"], means["mini"]) == (40.0, 60.0)
    assert class_differences(report)["car"]["mini"] == -10.0
    assert "tiny" not in class_differences(report)["car"]


def test_a_class_that_is_in_no_picture_is_a_dash(synthetic):
    (block,) = classes.section(synthetic().report).blocks
    row = block.split('<th scope="row">rider</th>')[1].split("</tr>")[0]
    assert row == "<td>–</td>" * 4


def test_the_ink_on_a_cell_can_be_read():
    dark, light = (
        classes._cell({"a": 95.0}, "a", 0, 100, classes.SEQUENTIAL, ""),
        classes._cell({"a": 5.0}, "a", 0, 100, classes.SEQUENTIAL, ""),
    )
    assert "color:#fff" in dark
    assert "color:#111" in light


def test_the_front_is_drawn_through_the_arms_on_it():
    points = [
        Point("cheap", 50.0, {"gmacs": 1.0}, frozenset({"gmacs"})),
        Point("poor", 49.0, {"gmacs": 2.0}, frozenset()),
        Point("dear", 60.0, {"gmacs": 3.0}, frozenset({"gmacs"})),
    ]
    figure = pareto_figure(points, "gmacs", "")
    assert named(figure) == ["front", "cheap", "poor", "dear"]
    assert (figure.data[0].x, figure.data[0].y) == ((1.0, 3.0), (50.0, 60.0))
    assert [trace.marker.symbol for trace in figure.data[1:]] == ["circle", "circle-open", "circle"]


def test_arms_that_cost_the_same_have_no_figure_of_cost(synthetic):
    assert pareto.section(synthetic().report) is None
    assert pareto.section(synthetic("costs", "other").report) is not None


def test_the_history_has_every_trial_and_the_best_so_far(synthetic):
    (searched,) = synthetic("search").report.searched
    figure = history_figure(searched.trials, "select/miou")
    points = {trace.name: trace for trace in figure.data}
    assert len(points["finished"].x) + len(points["stopped"].x) == 20
    best = points["best so far"].y
    assert list(best) == list(np.maximum.accumulate(points["finished"].y))


def test_importance_shows_each_dimension_by_each_evaluator():
    figure = importance_figure({"fanova": {"optim.lr": 0.9, "distill": 0.1}, "ped_anova": {"optim.lr": 1.0}})
    assert named(figure) == ["fANOVA", "PED-ANOVA"]
    assert [bar.y for bar in figure.data] == [("distill", "lr")] * 2
    assert [bar.x for bar in figure.data] == [(0.1, 0.9), (0.0, 1.0)]


def test_parallel_coordinates_lead_each_trial_to_its_score(synthetic):
    (searched,) = synthetic("search").report.searched
    figure = parallel_figure(searched.study, searched.trials)
    ended = [trial for trial in searched.trials if trial.state == "finished"]
    lines = [own for trace in figure.data for own in _lines(trace)]
    assert len(lines) == len(ended)
    assert all(0 <= x <= 1 for line in lines for x, _ in line)
    # The last axis is the score's, and one that does not apply has no dot.
    assert all(line[-1][1] == 4 for line in lines)
    assert sum(len(line) == 4 for line in lines) == sum(trial.values["distill"] == "csf" for trial in ended)
    (best,) = _lines(figure.data[-1])
    assert best[-1][0] == 1.0


def test_one_finished_trial_is_no_picture(synthetic):
    (searched,) = synthetic("search").report.searched
    assert parallel_figure(searched.study, searched.trials[:1]) is None


def test_two_objectives_have_a_front():
    spent = [(50.0, 1.0), (40.0, 2.0), (60.0, 3.0)]
    trials = [Trial(i, {}, "finished", 9, {"select/miou": s}, "", {"gmacs": c}) for i, (s, c) in enumerate(spent)]
    dots, front = against_figure(trials, "select/miou", "gmacs").data
    assert dots.x == (1.0, 2.0, 3.0)
    assert (front.x, front.y) == ((1.0, 3.0), (50.0, 60.0))


@pytest.mark.slow
def test_a_search_of_each_variant_is_drawn(synthetic):
    blocks = "".join(search.section(synthetic("tuned").report).blocks)
    for index in (0, 1):
        for part in ("history", "importance", "parallel"):
            assert f'id="{part}-{index}"' in blocks
    assert "of student alone" in blocks


def test_what_has_no_data_has_no_section(synthetic):
    report = synthetic(ends={(arm, seed): None for arm in ("Base <both>",) for seed in range(6)}).report
    assert forest.section(report) is None
    assert search.section(report) is None


def test_numbers_are_rounded_and_gaps_stay_gaps():
    assert rounded([1 / 3, math.nan, math.inf, None, 1e-9]) == [0.333333, None, None, None, 1e-9]


def _lines(trace):
    """The points of each line of a trace whose lines are parted by gaps."""
    lines, line = [], []
    for point in zip(trace.x, trace.y, strict=True):
        if point[0] is None:
            lines.append(line)
            line = []
        else:
            line.append(point)
    return lines
