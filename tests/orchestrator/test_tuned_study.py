"""`tune_each` under Ray: a search a variant, then each winner on seeds of its own; a kill changes nothing."""

import re

import pytest
import yaml

from ablations.study.schema import load
from orchestrator.state.progress import study_status
from orchestrator.state.study_state import StudyState
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger

pytestmark = [pytest.mark.slow, pytest.mark.ray]

STUDY = """
name: tuned
base:
  data: {name: scenes, size: [64, 128], select: 0.25, options: {train: 16, val: 8, size: [64, 128]}}
  student: {name: segformer_tiny}
  teacher: {name: segformer_mini, train: {epochs: 1}}
  optim: {lr: 3.0e-3, epochs: 2, global_batch: 4}
  distill: {csf: {}, pea: {}}
variants:
  student alone: {distill: {}}
  TransKD-Base: {}
seeds: [0, 1]
tune_each:
  trials: 2
  startup: 1
  space:
    optim.lr: {log: [1.0e-3, 1.0e-2]}
    distill.csf.weight: {log: [1.0e-2, 10.0]}
limits: {params_m: 5}
"""


@pytest.fixture
def words(tmp_path):
    """words(study's text): the study's file, and a spec that runs one after the other."""

    def write(text):
        (tmp_path / "one.yaml").write_text(yaml.safe_dump({"cpus_per_worker": 0.5, "concurrency": 1}))
        (tmp_path / "tuned.yaml").write_text(text)
        return tmp_path / "tuned.yaml", "--cluster", tmp_path / "one.yaml"

    return write


def test_winners_run_on_their_own_seeds_and_a_kill_in_a_search_changes_nothing(driver, words, begun):
    study = words(STUDY)
    assert "9 runs, 9 to do" in (done := driver("run", *study)).out, done.err
    assert done.code == 0, done.err
    trials = driver.events("trial")
    assert [event["arm"] for event in trials] == [
        *("student alone trial 0", "student alone trial 1"),
        *("TransKD-Base trial 0", "TransKD-Base trial 1"),
    ]
    ended = {event["run_id"]: event for event in driver.events("finished")}
    assert {event["seed"] for event in trials} == {100}
    scores = {event["arm"]: ended[event["run_id"]]["last"]["select/miou"] for event in trials}
    for arm in ("student alone", "TransKD-Base"):
        own = [event for event in trials if event["arm"].startswith(arm)]
        best = max(own, key=lambda event: (scores[event["arm"]], -event["number"]))
        runs = [event for event in ended.values() if event["arm"] == arm]
        assert {event["seed"] for event in runs} == {0, 1}
        for run in runs:
            config = yaml.safe_load((driver.store / "runs" / run["run_id"] / "config.yaml").read_text())
            assert config["optim"]["lr"] == best["values"]["optim.lr"]
            assert config["data"]["select"] == 0.25
            weights = {name: term["weight"] for name, term in config["distill"].items()}
            csf = best["values"].get("distill.csf.weight")
            assert weights == ({} if csf is None else {"csf": csf, "pea": 1.0})
    table = driver.table("tuned")
    assert re.search(r"^student alone +2 +2 ", table, re.M) and re.search(r"^TransKD-Base +2 +2 ", table, re.M)
    assert "unequal" not in table
    again = driver.here("run", *study)
    assert "9 runs, 0 to do" in again.out
    assert driver.table("tuned") == table
    loaded, store = load(study[0]), Store(driver.store)
    ledger = Ledger(store.ledger)
    assert study_status(StudyState(loaded, ledger), {}).counts == {"finished": 9}
    assert all(run.finished for run in StudyState(loaded, ledger).runs)

    killed = type(driver)(begun(driver.store.parent / "killed" / "store"))
    killed.kill_when(killed.start("run", *study), lambda: len(killed.events("trial")) == 4)
    assert not [event for event in killed.events("finished") if event["arm"] == "TransKD-Base"]
    assert killed("run", *study).code == 0
    killed.end()
    assert killed.numbers() == driver.numbers()
    assert killed.table("tuned") == table


def test_what_is_beyond_a_limit_is_refused_before_a_run_is_spent(driver, words):
    study = words(STUDY.replace("params_m: 5", "params_m: 0.01"))
    for verb in ("plan", "run"):
        done = driver.here(verb, *study)
        assert done.code == 2
        assert re.search(
            r"tuned: limits: student alone: params_m 0.0\d+ is above 0.01; TransKD-Base: .*; take a",
            done.err.strip().splitlines()[-1],
        )
    assert driver.events("started") == []
