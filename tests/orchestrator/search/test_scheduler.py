"""The thin scheduler asks the rule after every epoch, and does what it says."""

from pathlib import Path
from types import SimpleNamespace

from ray.tune.schedulers import TrialScheduler

from orchestrator.search.scheduler import EarlyStopping
from trainer.files import run_folder


def test_a_trial_is_ended_where_the_rule_says_so():
    asked = []

    def goes_on(run_id, result):
        asked.append((run_id, result["epoch"]))
        return result["epoch"] < 3

    scheduler = EarlyStopping(goes_on)
    trial = SimpleNamespace(config={"jobs": [{"run_id": "a"}]})
    said = [scheduler.on_trial_result(None, trial, {"run_id": "a", "epoch": epoch}) for epoch in (1, 2, 3)]
    assert said == [TrialScheduler.CONTINUE, TrialScheduler.CONTINUE, TrialScheduler.STOP]
    assert asked == [("a", 1), ("a", 2), ("a", 3)]


def test_a_run_of_a_cohort_is_asked_to_end_and_the_last_one_ends_the_trial(tmp_path):
    scheduler = EarlyStopping(lambda run_id, result: result["epoch"] < 3)
    jobs = [{"run_id": name, "place": {"out_dir": str(tmp_path / name)}} for name in ("a", "b")]
    for job in jobs:
        Path(job["place"]["out_dir"]).mkdir()
    trial = SimpleNamespace(config={"jobs": jobs})
    assert scheduler.on_trial_result(None, trial, {"run_id": "a", "epoch": 2}) == TrialScheduler.CONTINUE
    assert not run_folder.is_asked_to_end(tmp_path / "a")
    assert scheduler.on_trial_result(None, trial, {"run_id": "a", "epoch": 3}) == TrialScheduler.CONTINUE
    assert run_folder.is_asked_to_end(tmp_path / "a") and not run_folder.is_asked_to_end(tmp_path / "b")
    trial.config["jobs"] = jobs[1:]
    assert scheduler.on_trial_result(None, trial, {"run_id": "b", "epoch": 3}) == TrialScheduler.STOP
    assert not run_folder.is_asked_to_end(tmp_path / "b")


def test_a_trial_that_ended_without_an_epoch_is_no_question_for_the_rule():
    scheduler = EarlyStopping(lambda run_id, result: False)
    assert scheduler.on_trial_result(None, SimpleNamespace(config={"jobs": []}), {}) == TrialScheduler.CONTINUE
