"""A search proposes the same whatever kills it, asks again for what cannot be, and trains no run twice at once."""

import math

import pytest

from ablations.plan import start_points
from ablations.ranking import Trial
from ablations.study import read
from orchestrator.search import Proposal, StudySearcher, importances, rebuild
from trainer.config import UserError

STUDY = """
name: sought
base:
  data: {name: scenes, size: [64, 128], select: 0.25, options: {train: 16, val: 8, size: [64, 128]}}
  student: {name: segformer_tiny}
  teacher: {name: segformer_mini, train: {epochs: 1}}
  optim: {lr: 3.0e-3, epochs: 3, global_batch: 4}
  distill: {csf: {}, pea: {}}
search:
  trials: 12
  stop: asha
  startup: 3
  space:
    distill:
      choice:
        pea: {pea: {}}
        base: {csf: {}, pea: {}}
    distill.csf.weight: {log: [1.0e-2, 10.0]}
    distill.pea.weight: {log: [1.0e-2, 10.0]}
  start:
    - {distill: base, distill.csf.weight: 1.0, distill.pea.weight: 1.0}
"""


class Bench:
    """A search whose trials cost nothing: their score is a function of what was proposed."""

    def __init__(self, history=(), text=STUDY, refuse=lambda values: False):
        self.study = read(text, "sought.yaml")
        self.history = list(history)
        self.begun = {}
        self.refuse = refuse
        self.searcher = StudySearcher(self.study, self.history, self.begin, self.ended)

    def begin(self, number, values):
        if self.refuse(values):
            raise UserError("infeasible")
        run_id = str(sorted(values.items()))
        if run_id in self.begun:
            return None
        self.begun[run_id] = (number, dict(values))
        return {"run_id": run_id}

    def ended(self, run_id, error):
        number, values = self.begun.pop(run_id)
        score = -abs(math.log(values["distill.pea.weight"]) - 1) + ("distill.csf.weight" in values)
        # Every third is stopped early, every seventh fails, as in life.
        status = "failed" if number % 7 == 6 else "stopped" if number % 3 == 2 else "finished"
        last = {} if status == "failed" else {"select/miou": score, "epoch": 1.0 if status == "stopped" else 3.0}
        self.history.append(Proposal(run_id, Trial(number, values, status, int(last.get("epoch", 0)), last)))
        return status, last

    def step(self, name="t"):
        config = self.searcher.suggest(name)
        if isinstance(config, dict):
            self.searcher.on_trial_complete(name)
        return config

    def run(self, trials=100):
        while trials and isinstance(self.step(), dict):
            trials -= 1
        return [(trial.number, trial.values) for _, trial in self.history]


def test_known_points_come_first_and_trials_is_a_total():
    found = Bench().run()
    assert len(found) == 12
    assert found[0] == (0, start_points(read(STUDY, "sought.yaml"))[0])
    assert {values["distill"] for _, values in found} == {"pea", "base"}
    assert all(("distill.csf.weight" in values) == (values["distill"] == "base") for _, values in found)
    more = Bench(history_of(12), STUDY.replace("trials: 12", "trials: 14")).run()
    assert more[:12] == found
    assert len(more) == 14


def history_of(trials):
    bench = Bench()
    bench.run(trials)
    return bench.history


@pytest.mark.parametrize("cut", range(12))
def test_a_search_cut_anywhere_proposes_what_an_undisturbed_one_does(cut):
    whole = Bench().run()
    assert Bench(history_of(cut)).run() == whole


def test_what_a_kill_interrupted_is_run_again_first():
    whole = Bench()
    whole.run()
    bench = Bench()
    bench.run(5)
    config = bench.searcher.suggest("cut short")
    number, values = bench.begun[config["job"]["run_id"]]
    assert number == 5
    interrupted = Proposal(config["job"]["run_id"], Trial(number, values, "running"))
    again = Bench([*bench.history, interrupted])
    again.history.pop()
    assert again.run() == [(trial.number, trial.values) for _, trial in whole.history]


def test_infeasible_points_are_asked_again_and_take_no_number():
    bench = Bench(refuse=lambda values: values["distill"] == "pea")
    found = bench.run()
    assert [number for number, _ in found] == list(range(12))
    assert {values["distill"] for _, values in found} == {"base"}


def test_a_space_without_a_feasible_point_is_said_to_have_none():
    with pytest.raises(UserError, match="sought: 1000 proposals in a row were infeasible; loosen the space"):
        Bench(refuse=lambda values: True).step()


def test_a_run_that_trains_now_is_not_begun_again():
    only = STUDY.replace("distill.csf.weight: {log: [1.0e-2, 10.0]}", "").replace(
        "distill.pea.weight: {log: [1.0e-2, 10.0]}", "distill.pea.weight: {choice: [1.0, 2.0]}"
    )
    only = only.replace("        base: {csf: {}, pea: {}}\n", "        base: {csf: {}, pea: {}}\n").partition(
        "  start:"
    )[0]
    bench = Bench(text=only)
    names = []
    while isinstance(bench.searcher.suggest(name := f"t{len(names)}"), dict):
        names.append(name)
    assert 1 <= len(names) <= 4
    assert bench.searcher.suggest("later") is None
    assert len(bench.begun) == len(names) == bench.searcher.count


def test_optuna_is_told_how_trials_ended_and_names_what_mattered():
    history = history_of(12)
    states = [trial.state.name for trial in rebuild(read(STUDY, "sought.yaml"), history).trials]
    expected = {"finished": "COMPLETE", "stopped": "PRUNED", "failed": "FAIL"}
    assert states == [expected[trial.state] for _, trial in history]
    shares = importances(read(STUDY, "sought.yaml"), history)
    assert set(shares) <= {"distill", "distill.csf.weight", "distill.pea.weight"}
    assert importances(read(STUDY, "sought.yaml"), []) == {}
