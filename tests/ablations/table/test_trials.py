"""The table of a search: the order of its trials, the front against a cost."""

from __future__ import annotations

import math

from ablations.study.trial import Trial
from ablations.table.text import to_plain
from ablations.table.trials import search_table
from tests.ablations.table.finished_runs import column

SEARCH = """
search:
  trials: 6
  space: {distill.csf: {choice: [null, {}]}, distill.csf.weight: {log: [1.0e-2, 10.0]}}
"""


def test_a_search_ranks_finished_trials_before_stopped_ones(study):
    written = study(SEARCH, data=", select: 0.1")
    on = {"distill.csf": "on", "distill.csf.weight": 0.123456}
    trials = [
        Trial(0, {"distill.csf": "off"}, "finished", 9, {"select/miou": 40.0, "val/miou": 39.0}),
        Trial(1, on, "stopped", 3, {"select/miou": 50.0}),
        Trial(2, on, "finished", 9, {"select/miou": 41.0, "val/miou": 38.0}),
        Trial(3, on, "failed", 1, {}, "loss is nan at step 3"),
        Trial(4, on, "finished", 9, {"select/miou": math.nan}),
    ]
    table = search_table(written, trials, top=4)
    assert table.title == "written   5 of 6 trials, tpe, by select/miou"
    assert column(table, "trial") == ["2", "0", "4", "1"]
    assert column(table, "csf.weight") == ["0.123", "", "0.123", "0.123"]
    assert column(table, "val/miou") == ["38.0", "39.0", "-", "-"]
    assert table.rows[0].values["distill.csf.weight"] == 0.123456
    assert table.notes[0] == "3 finished, 1 stopped, 1 failed"
    assert "Failed: trial 3: loss is nan at step 3." in table.explained
    assert to_plain(search_table(written, [])).splitlines()[2] == " no trial yet"


AGAINST = """
search:
  trials: 6
  sampler: nsga2
  against: gmacs
  space: {optim.epochs: {int: [2, 9]}, student.name: {choice: [segformer_tiny, segformer_mini]}}
"""


def test_a_search_against_a_cost_shows_what_its_front_is_made_of(study):
    written = study(AGAINST, data=", select: 0.1")
    trials = [
        Trial(0, {"optim.epochs": 3}, "finished", 3, {"select/miou": 40.0}, costs={"gmacs": 0.0024812}),
        Trial(1, {"optim.epochs": 9}, "finished", 9, {"select/miou": 39.0}, costs={"gmacs": 0.00073}),
        Trial(2, {"optim.epochs": 5}, "failed", 1, {}, "loss is nan at step 3"),
    ]
    table = search_table(written, trials)
    assert column(table, "gmacs") == ["0.00248", "0.00073", "-"]
    assert column(table, "optim.epochs") == ["3", "9", "5"]
    assert column(table, "epochs") == ["3", "9", "1"]
