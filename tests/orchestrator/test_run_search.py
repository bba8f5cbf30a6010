"""A search under Ray: trials stop early, `trials` is a total, and a kill changes nothing."""

import re

import pytest
import yaml

pytestmark = pytest.mark.slow

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


def in_its_third_trial(driver):
    trials = driver.events("trial")
    return len(trials) == 3 and driver.epochs(trials[2]["run_id"])


def test_four_trials_then_nothing_then_two_more_equal_six_with_a_kill(driver, write, tmp_path):
    done = driver("run", *write(4))
    assert done.code == 0, done.err
    assert "sought: 5 runs, 5 to do" in done.out
    assert len(driver.events("trial")) == 4
    again = driver("run", *write(4))
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
    assert "importance (PED-ANOVA" in table

    killed = type(driver)(tmp_path / "killed" / "store")
    killed.kill_when(killed.start("run", *write(6)), lambda: in_its_third_trial(killed))
    assert killed("run", *write(6)).code == 0
    killed.end()
    assert sequence(killed) == found
    assert killed.table("sought") == table
