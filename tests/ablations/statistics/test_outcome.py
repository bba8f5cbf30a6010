"""What a table reads from the outcomes of runs."""

from __future__ import annotations

import math

import pytest

from ablations.statistics.outcome import Outcome, scores_of
from ablations.study.plan import expand


@pytest.mark.parametrize("status", ["finished", "failed", "running", "missing"])
def test_only_finished_runs_have_a_score(study, status):
    written = study("variants: {a: {}}\nseeds: 2\n")
    group = [run for run in expand(written) if run.role == "arm"]
    outcomes = {run.key: Outcome(status, {"val/miou": 50.0 + run.seed}) for run in group}
    assert scores_of(written, group, outcomes) == ({0: 50.0, 1: 51.0} if status == "finished" else {})


@pytest.mark.parametrize("metrics", [{}, {"val/miou": math.nan}, {"val/miou": -math.inf}])
def test_what_is_no_number_is_no_score(study, metrics):
    written = study("variants: {a: {}}\n")
    group = [run for run in expand(written) if run.role == "arm"]
    assert scores_of(written, group, {run.key: Outcome("finished", metrics) for run in group}) == {}
    assert scores_of(written, group, {}) == {}
