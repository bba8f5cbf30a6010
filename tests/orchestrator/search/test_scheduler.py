"""The thin scheduler asks the rule after every epoch, and does what it says."""

from types import SimpleNamespace

from ray.tune.schedulers import TrialScheduler

from orchestrator.search.scheduler import EarlyStopping


def test_a_trial_is_ended_where_the_rule_says_so():
    asked = []

    def goes_on(run_id, result):
        asked.append((run_id, result["epoch"]))
        return result["epoch"] < 3

    scheduler = EarlyStopping(goes_on)
    trial = SimpleNamespace(config={"job": {"run_id": "a"}})
    said = [scheduler.on_trial_result(None, trial, {"epoch": epoch}) for epoch in (1, 2, 3)]
    assert said == [TrialScheduler.CONTINUE, TrialScheduler.CONTINUE, TrialScheduler.STOP]
    assert asked == [("a", 1), ("a", 2), ("a", 3)]
