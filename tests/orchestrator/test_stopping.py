"""Successive halving: the rule as a table, and rungs that a killed search remembers."""

import json
import math
from types import SimpleNamespace

import pytest
from ray.tune.schedulers import TrialScheduler

from ablations.space import Search
from orchestrator.stopping import Halving, goes_on

SEARCH = Search.model_validate(
    {"trials": 9, "stop": "asha", "space": {"distill.csf.weight": {"log": [0.1, 1.0]}}, "eta": 3, "min_epochs": 1}
)


@pytest.mark.parametrize(
    ("value", "others", "eta", "passes"),
    [
        (0.1, [], 3, True),  # the first at a rung has nobody to be worse than
        (0.1, [0.2], 3, False),
        (0.2, [0.1], 3, True),
        (0.2, [0.2], 3, True),  # a tie is not worse
        (0.3, [0.4, 0.1, 0.2], 3, True),  # four are there: two go on
        (0.2, [0.4, 0.3, 0.1], 3, False),
        (0.3, [0.4, 0.1], 2, True),
        (math.nan, [], 3, False),
        (0.1, [math.nan, math.nan], 3, True),
    ],
)
def test_the_rule(value, others, eta, passes):
    assert goes_on(value, others, eta) is passes


def trial(name):
    return SimpleNamespace(config={"job": {"run_id": name}})


def result(epoch, value, metric="select/miou"):
    return {"epoch": float(epoch), metric: value}


def test_trials_are_judged_at_rungs_only():
    halving = Halving(SEARCH, 9, [])
    assert SEARCH.rungs(9) == (1, 3)
    assert halving.on_trial_result(None, trial("a"), result(1, 0.5)) == TrialScheduler.CONTINUE
    assert halving.on_trial_result(None, trial("b"), result(1, 0.9)) == TrialScheduler.CONTINUE
    assert halving.on_trial_result(None, trial("c"), result(1, 0.1)) == TrialScheduler.STOP
    assert halving.on_trial_result(None, trial("b"), result(2, 0.0)) == TrialScheduler.CONTINUE
    assert halving.on_trial_result(None, trial("a"), result(3, 0.6)) == TrialScheduler.CONTINUE
    assert halving.on_trial_result(None, trial("b"), result(3, 0.5)) == TrialScheduler.STOP
    assert halving.on_trial_result(None, trial("a"), result(9, 0.0)) == TrialScheduler.CONTINUE
    assert halving.on_trial_result(None, trial("d"), result(1, 0.0, "val/miou")) == TrialScheduler.CONTINUE


def test_rungs_are_filled_from_the_records_of_earlier_trials(tmp_path):
    for name, values in (("a", [0.2, 0.3, 0.4]), ("b", [0.1])):
        (tmp_path / name).mkdir()
        lines = [json.dumps(result(epoch, value)) for epoch, value in enumerate(values, start=1)]
        (tmp_path / name / "epochs.jsonl").write_text("\n".join(lines) + "\n")
    halving = Halving(SEARCH, 9, [tmp_path / "a", tmp_path / "b", tmp_path / "not yet"])
    assert halving.at == {1: {"a": 0.2, "b": 0.1}, 3: {"a": 0.4}}
    # b was killed between its first epoch and the decision about it.
    assert not halving.passes("b", result(1, 0.1))
    assert halving.passes("c", result(3, 0.5))
