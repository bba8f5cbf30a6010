"""A search under Ray: trials stop early, `trials` is a total, and a kill changes nothing."""

import re

import optuna
import pytest
import yaml

from ablations.study.schema import load
from orchestrator.search.optuna_sampling import OptunaSampling
from orchestrator.state.proposals import proposals
from orchestrator.store.ledger import Ledger

pytestmark = [pytest.mark.slow, pytest.mark.ray]

STUDY = """
name: sought
base:
  data: {name: scenes, size: [64, 128], select: 0.25, options: {train: 32, val: 8, size: [64, 128]}}
  student: {name: segformer_tiny}
  teacher: {name: segformer_mini, train: {epochs: 1}}
  optim: {lr: 3.0e-3, epochs: 4, global_batch: 4}
  distill: {csf: {}, pea: {}}
search:
  trials: TRIALS
  stop: asha
  startup: 2
  space:
    distill: {choice: {pea: {pea: {}}, base: {csf: {}, pea: {}}}}
    distill.csf.weight: {log: [1.0e-2, 10.0]}
    distill.pea.weight: {log: [1.0e-2, 10.0]}
"""


@pytest.fixture
def write(tmp_path):
    """The study's file with so many trials, and a spec that runs them one after the other."""

    def write(trials):
        (tmp_path / "one.yaml").write_text(yaml.safe_dump({"cpus_per_worker": 0.5, "concurrency": 1}))
        (tmp_path / "sought.yaml").write_text(STUDY.replace("TRIALS", str(trials)))
        return tmp_path / "sought.yaml", "--cluster", tmp_path / "one.yaml"

    return write


def sequence(driver):
    """What was proposed, by number, how it ended, and its numbers."""
    ends = {event["run_id"]: event["event"] for event in driver.events("finished", "stopped", "failed")}
    return [
        (event["number"], event["values"], ends[event["run_id"]], driver.epochs(event["run_id"]))
        for event in driver.events("trial")
    ]


def test_four_trials_then_nothing_then_two_more_equal_six(driver, write, begun, tmp_path):
    done = driver("run", *write(4))
    assert done.code == 0, done.err
    assert "sought: 5 runs, 5 to do" in done.out
    assert len(driver.events("trial")) == 4
    again = driver.here("run", *write(4))
    assert "sought: 5 runs, 0 to do" in again.out
    assert again.out.partition("\n\n")[2] == done.out.partition("\n\n")[2]
    more = driver("run", *write(6))
    assert "sought: 7 runs, 2 to do" in more.out

    found = sequence(driver)
    assert [number for number, *_ in found] == list(range(6))
    assert {event["event"] for event in driver.events("finished", "stopped", "failed")} == {"finished", "stopped"}
    for _, _, end, epochs in found:
        assert len(epochs) == 4 if end == "finished" else len(epochs) in (1, 3), "asha stops at its rungs alone"
    table = driver.table("sought")
    assert re.match(r"sought   6 of 6 trials, tpe, by select/miou\n", table)
    assert "importance" not in table, "of so few trials"

    at_once = type(driver)(begun(tmp_path / "at_once" / "store"))
    assert at_once("run", *write(6)).code == 0
    assert sequence(at_once) == found
    assert at_once.table("sought") == table


def test_a_deterministic_search_is_a_function_of_its_curves_whatever_kills_it(driver, write, tmp_path):
    file, *_ = write(5)
    file.write_text(file.read_text().replace("stop: asha", "stop: asha\n  deterministic: true\n  batch: 3"))
    specs = {}
    for concurrency in (1, 2):
        specs[concurrency] = tmp_path / f"{concurrency}.yaml"
        specs[concurrency].write_text(yaml.safe_dump({"cpus_per_worker": 0.5, "concurrency": concurrency}))

    def in_its_second_batch():
        trials = driver.events("trial")
        return len(trials) == 5 and driver.epochs(trials[3]["run_id"])

    driver.kill_when(driver.start("run", file, "--cluster", specs[2]), in_its_second_batch)
    done = driver("run", file, "--cluster", specs[1])
    assert done.code == 0, done.err
    driver.end()

    study, ledger = load(file), Ledger(driver.store / "ledger.jsonl")
    history = [trial for _, trial in proposals(study, ledger)]
    assert [trial.number for trial in history] == list(range(5))
    # Proposals follow from what was told, batch by batch, and stops from the curves: neither from who was first.
    optimiser = OptunaSampling(study)
    for batch in (history[:3], history[3:]):
        assert [optimiser.ask(trial.number) for trial in batch] == [trial.values for trial in batch]
        for trial in batch:
            optimiser.tell(trial)
    for run_id, trial in proposals(study, ledger):
        assert [epoch["epoch"] for epoch in driver.epochs(run_id)] == list(range(1, trial.epochs + 1))
        assert trial.epochs == 4 if trial.state == "finished" else trial.epochs in (1, 3)
    assert {trial.state for trial in history} == {"finished", "stopped"}
    # A rung is a point of the full-length schedule, for those who end there too.
    rates = {(epoch["epoch"], epoch["lr"]) for run_id, _ in proposals(study, ledger) for epoch in driver.epochs(run_id)}
    assert len(rates) == 4
    shown = optuna.load_study(study_name=None, storage=f"sqlite:///{driver.store / 'optuna.db'}")
    assert [trial.params for trial in shown.trials] == [trial.values for trial in history]


def test_trials_that_end_before_the_metric_was_ever_measured_end_no_search(driver, tmp_path):
    """One's loss leaves the finite numbers in its first epoch, and the other's first epoch is not evaluated."""
    study = yaml.safe_load(STUDY.replace("TRIALS", "2"))
    study["base"] |= {"distill": {}, "teacher": None, "eval": {"every": 2}, "optim": {"epochs": 2, "global_batch": 4}}
    study["search"] = {"sampler": "grid", "space": {"optim.lr": {"choice": [1.0e12, 1.0e-3]}}}
    (tmp_path / "ends.yaml").write_text(yaml.safe_dump(study))
    spec = tmp_path / "one.yaml"
    spec.write_text(yaml.safe_dump({"cpus_per_worker": 0.5, "concurrency": 1}))
    done = driver("run", tmp_path / "ends.yaml", "--cluster", spec)
    assert done.code == 0, done.err
    found = [trial for _, trial in proposals(load(tmp_path / "ends.yaml"), Ledger(driver.store / "ledger.jsonl"))]
    assert [(trial.state, trial.epochs) for trial in found] == [("failed", 0), ("finished", 2)]
