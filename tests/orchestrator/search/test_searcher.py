"""A search proposes the same whatever kills it, asks again for what cannot be, and trains no config twice."""

import json
import math
from collections import Counter

import pytest
from ray.tune.search import Searcher

from ablations.study.plan import search_identity, start_points
from ablations.study.schema import read
from ablations.study.trial import Trial
from orchestrator.running import shared_searcher
from orchestrator.search.batch_searcher import BatchSearcher
from orchestrator.search.importance import EVALUATORS, importances
from orchestrator.search.optuna_sampling import OptunaSampling
from orchestrator.search.samplers import SAMPLERS
from orchestrator.search.searcher import RecordedProposal, StudySearcher
from orchestrator.state.proposals import proposals, to_train
from orchestrator.store.ledger import Ledger
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
  startup: 3
  stop: asha
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

NUMERIC = STUDY.partition("  space:")[0].replace("asha", "none") + (
    "  space: {distill.csf.weight: {log: [1.0e-2, 10.0]}, distill.pea.weight: {log: [1.0e-2, 10.0]}}\n"
)
CHOICES = STUDY.partition("  space:")[0].replace("  trials: 12\n  startup: 3\n", "") + (
    "  sampler: grid\n  space: {distill.csf: {choice: [null, {}]}, distill.csf.weight: {choice: [0.5, 1.0, 2.0]},"
    " distill.pea.weight: {choice: [1.0, 2.0, 4.0]}}\n"
)
SPACES = {
    "tpe": STUDY,
    "random": STUDY.replace("startup: 3", "sampler: random"),
    "cmaes": NUMERIC.replace("trials: 12", "trials: 12\n  sampler: cmaes"),
    "nsga2": NUMERIC.replace("trials: 12", "trials: 12\n  sampler: nsga2\n  against: gmacs"),
    "grid": CHOICES,
}
"""A study for every sampler, in whose history it has something to remember."""


def settings(run_id):
    """What the driver gives the process of a trial, as far as a searcher reads it."""
    return {"run_id": run_id, "resources": {"CPU": 1.0}, "group_sizes": [1]}


class Bench:
    """A search on a real ledger, whose trials cost nothing: their curves are functions of what was proposed.

    `slots` run at once, `together` of a deterministic search train together, and `order` says which is next to end.
    """

    def __init__(
        self,
        folder,
        text=STUDY,
        refuse=lambda values: False,
        slots=1,
        order=lambda running: 0,
        told=(),
        together=1,
        claim=list,
    ):
        self.study = read(text, "sought.yaml")
        self.search = self.study.search
        self.identity = search_identity(self.study)
        self.ledger = Ledger(folder / "ledger.jsonl")
        self.refuse, self.slots, self.order = refuse, slots, order
        history = proposals(self.study, self.ledger)
        self.known = {trial.number: (run_id, trial) for run_id, trial in history}
        given = (self.study, history, told, self.begin, self.ended, claim)

        def cohorts(run_ids):
            return [run_ids[first : first + together] for first in range(0, len(run_ids), together)]

        self.searcher = (
            BatchSearcher(*given, judged=lambda: to_train(self.study, self.ledger), cohorts=cohorts)
            if self.search.deterministic
            else StudySearcher(*given)
        )
        self.running = {}
        self.asked = 0
        self.trained = []

    def begin(self, trial):
        if self.refuse(trial.values):
            raise UserError("infeasible")
        run_id = json.dumps(trial.values, sort_keys=True)
        if trial.number in self.known:
            now = self.ended(trial.number, False)
            return RecordedProposal(run_id, settings(run_id), None if now.state == "running" else now)
        self.known[trial.number] = (run_id, trial)
        facts = {"number": trial.number, "values": trial.values, "infeasible": trial.infeasible}
        over = [t for run, t in self.history if run == run_id and t.state != "running"]
        end = {"end": {"event": over[0].state, "last": over[0].metrics}} if over else {}
        self.event("trial", run_id, search=self.identity, **facts, costs=self.costs(trial.values), **end)
        return RecordedProposal(run_id, settings(run_id), self.ended(trial.number, False) if over else None)

    def event(self, kind, run_id, **more):
        self.ledger.append({"event": kind, "run_id": run_id, "study": self.study.name, **more})

    def costs(self, values):
        return {"gmacs": float(values.get("distill.pea.weight", 1.0))}

    def curve(self, values):
        weights = [float(values.get(f"distill.{name}.weight", 0.1)) for name in ("csf", "pea")]
        level = -sum(abs(math.log(weight) - 1) for weight in weights)
        return {epoch: level + epoch for epoch in (1, 2, 3)}

    def train(self, run_id):
        """An attempt: to the end, or, as a thin scheduler would have it, to the next rung."""
        values = json.loads(run_id)
        done = len(self.ledger.outcomes()[run_id].epochs)
        self.trained.append(run_id)
        rungs = self.search.rungs(3) if self.search.deterministic else ()
        # Every seventh of a free search fails, every third is stopped, as in life.
        fate = len(self.ledger.outcomes()) % 7 if not self.search.deterministic else 0
        for epoch in range(done + 1, 4):
            metrics = {"epoch": float(epoch), "select/miou": self.curve(values)[epoch]}
            self.ledger.append({"event": "epoch", "run_id": run_id, "metrics": metrics})
            if epoch in rungs or (fate in (3, 5) and self.search.stop != "none"):
                return None if epoch in rungs else self.event("stopped", run_id, last=metrics)
        if fate == 6:
            return self.event("failed", run_id, reason="as in life", cause="bug")
        return self.event("finished", run_id, last=metrics)

    def ended(self, number, error):
        return dict(enumerate(trial for _, trial in proposals(self.study, self.ledger)))[number]

    def step(self):
        """Start what may start, then end one trial; False where there is nothing left to do."""
        while len(self.running) < self.slots:
            self.asked += 1
            config = self.searcher.suggest(name := f"t{self.asked}")
            if not isinstance(config, dict):
                break
            self.running[name] = [job["run_id"] for job in config["jobs"]]
        if not self.running:
            return False
        name = list(self.running)[self.order(len(self.running))]
        for run_id in self.running.pop(name):
            self.train(run_id)
        self.searcher.on_trial_complete(name)
        return True

    def run(self, steps=1000):
        while steps and self.step():
            steps -= 1
        return [(trial.number, trial.values, trial.state, trial.epochs) for _, trial in self.history]

    @property
    def history(self):
        return proposals(self.study, self.ledger)


@pytest.fixture
def folder(tmp_path_factory):
    """folder(): a new one each time."""
    return lambda: tmp_path_factory.mktemp("store")


@pytest.mark.slow
def test_known_points_come_first_and_trials_is_a_total(folder):
    store = folder()
    found = Bench(store).run()
    assert [number for number, *_ in found] == list(range(12))
    assert found[0][1] == start_points(read(STUDY, "sought.yaml"))[0]
    assert {values["distill"] for _, values, *_ in found} == {"pea", "base"}
    assert all(("distill.csf.weight" in values) == (values["distill"] == "base") for _, values, *_ in found)
    assert {state for *_, state, _ in found} == {"finished", "stopped", "failed"}
    assert Bench(store).run() == found
    more = Bench(store, STUDY.replace("trials: 12", "trials: 14")).run()
    assert (more[:12], len(more)) == (found, 14)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_search_killed_anywhere_proposes_what_an_undisturbed_one_does(folder, name):
    whole = Bench(folder(), SPACES[name]).run()
    assert len(whole) == 12
    assert name == "nsga2" or len({json.dumps(values) for _, values, *_ in whole}) == 12
    for cut in (1, 4, 7, 11):
        store = folder()
        Bench(store, SPACES[name]).run(cut)
        assert Bench(store, SPACES[name]).run() == whole


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_kill_in_the_middle_of_a_trial_and_infeasible_points_change_nothing(folder, name):
    refuse = (lambda values: False) if name == "grid" else (lambda values: values["distill.pea.weight"] > 1)
    whole = Bench(folder(), SPACES[name], refuse).run()
    assert name == "grid" or max(values["distill.pea.weight"] for _, values, *_ in whole) <= 1
    store = folder()
    for _ in range(6):
        bench = Bench(store, SPACES[name], refuse)
        bench.run(2)
        assert isinstance(bench.searcher.suggest("cut short"), dict) or len(bench.history) == 12
    assert Bench(store, SPACES[name], refuse).run() == whole


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tpe", "cmaes", "nsga2"])
def test_a_sampler_learns_and_the_seed_decides(folder, name):
    def proposed(store, seed=0, told=()):
        found = Bench(store, SPACES[name].replace("startup: 3", f"startup: 3\n  seed: {seed}"), told=told).run()
        return [values for _, values, *_ in found]

    blind = SPACES[name].replace("  startup: 3\n", "").replace(f"sampler: {name}", "sampler: random")
    random = [values for _, values, *_ in Bench(folder(), blind).run()]
    once = proposed(folder())
    assert once == proposed(folder())
    assert once != proposed(folder(), seed=1)
    assert name == "tpe" or once[-1] != random[-1]
    space = read(SPACES[name], "sought.yaml").search.space
    weights = [path for path in space if path.endswith("weight")]
    told = []
    for number in range(12):
        values = dict.fromkeys(weights, 0.02 + number / 1000) | ({"distill": "base"} if "distill" in space else {})
        metrics = {"select/miou": float(number), "epoch": 3.0}
        told.append(Trial(number, values, "finished", 3, metrics, costs={"gmacs": 1.0}))
    assert proposed(folder(), told=told)[1:] != once[1:]


def test_a_grid_visits_each_point_that_applies_once(folder):
    study = read(CHOICES, "sought.yaml")
    assert study.search.trials == 12, "three weights of pea, beside csf off and three weights of csf"
    found = [values for _, values, *_ in Bench(folder(), CHOICES).run()]
    assert sum(values["distill.csf"] == "off" for values in found) == 3
    assert all(("distill.csf.weight" in values) == (values["distill.csf"] == "on") for values in found)
    few = [v for _, v, *_ in Bench(folder(), CHOICES.replace("sampler: grid", "sampler: grid\n  trials: 5")).run()]
    assert few == found[:5]


@pytest.mark.slow
def test_infeasible_points_are_asked_again_and_take_no_number(folder):
    found = Bench(folder(), refuse=lambda values: values["distill"] == "pea").run()
    assert [number for number, *_ in found] == list(range(12))
    assert {values["distill"] for _, values, *_ in found} == {"base"}


@pytest.mark.slow
def test_a_space_without_a_feasible_point_is_said_to_have_none(folder):
    with pytest.raises(
        UserError, match=r"sought: 1000 proposals in a row were infeasible; widen search\.space; the last: inf"
    ):
        Bench(folder(), refuse=lambda values: True).step()


FEW = STUDY.partition("  space:")[0].replace("startup: 3", "sampler: random") + (
    "  space: {distill.csf: {choice: [null, {}]}, distill.pea.weight: {choice: [1.0, 2.0]}}\n"
)


@pytest.mark.parametrize("slots", [1, 4])
def test_two_proposals_of_one_config_are_one_run(folder, slots):
    bench = Bench(folder(), FEW, slots=slots)
    found = bench.run()
    assert [number for number, *_ in found] == list(range(12))
    assert len(bench.trained) == len(set(bench.trained)) == len({json.dumps(values) for _, values, *_ in found}) == 4
    for run_id in bench.trained:
        assert len({(trial.state, trial.epochs) for run, trial in bench.history if run == run_id}) == 1
    assert not bench.searcher.sampling.asked, "all were told"


LOCKSTEP = STUDY.replace("startup: 3", "startup: 3\n  deterministic: true\n  batch: 5")


@pytest.mark.slow
@pytest.mark.parametrize("text", [LOCKSTEP, LOCKSTEP.replace("asha", "median"), LOCKSTEP.replace("asha", "none")])
def test_a_deterministic_search_is_the_same_however_many_run_and_whoever_is_first(folder, text):
    found = Bench(folder(), text).run()
    assert len(found) == 12
    assert all(state in ("finished", "stopped") for *_, state, _ in found)
    assert ("stopped" in {state for *_, state, _ in found}) == ("stop: none" not in text)
    for slots, order in ((2, lambda n: n - 1), (3, lambda n: n // 2), (16, lambda n: n - 1)):
        assert Bench(folder(), text, slots=slots, order=order).run() == found
    for together in (2, 3, 16):
        assert Bench(folder(), text, slots=2, together=together).run() == found
    for cut in range(1, 24, 3):
        store = folder()
        Bench(store, text, slots=3, together=1 + cut % 4).run(cut)
        assert Bench(store, text, slots=2, order=lambda n: n - 1).run() == found


@pytest.mark.slow
@pytest.mark.parametrize("text", [STUDY, LOCKSTEP])
def test_a_run_that_another_driver_trains_delays_a_search_and_changes_nothing(folder, text, monkeypatch):
    monkeypatch.setattr(shared_searcher, "LOOK_S", 0.0)
    asked = Counter()

    def claim(run_ids):
        asked[tuple(run_ids)] += 1
        return list(run_ids) if asked[tuple(run_ids)] % 3 == 0 else None

    bench, whole = Bench(folder(), text, claim=claim), Bench(folder(), text).run()
    while bench.searcher.ready():
        bench.run()
    assert bench.run() == whole
    assert len(bench.history) == 12 and max(asked.values()) >= 3
    assert bench.searcher.suggest("none") == Searcher.FINISHED


@pytest.mark.parametrize("text", [STUDY, LOCKSTEP])
def test_a_run_that_another_driver_has_trained_meanwhile_is_trained_no_more(folder, text, monkeypatch):
    monkeypatch.setattr(shared_searcher, "LOOK_S", 0.0)
    asked = Counter()

    def claim(run_ids):
        """The first three runs are another driver's, which ends them while they are asked for the second time."""
        (run_id,) = run_ids
        asked[run_id] += 1
        if list(asked).index(run_id) >= 3:
            return [run_id]
        if asked[run_id] == 2:
            bench.event("finished", run_id, last={"epoch": 3.0, "select/miou": bench.curve(json.loads(run_id))[3]})
        return None if asked[run_id] == 1 else []

    bench = Bench(folder(), text, claim=claim)
    while bench.searcher.ready():
        bench.run()
    others = list(asked)[:3]
    assert not set(others) & set(bench.trained) and len(bench.history) == 12
    assert [t.state for run_id, t in bench.history if run_id in others] == ["finished"] * 3


@pytest.mark.slow
def test_a_deterministic_search_that_is_made_longer_equals_one_that_was_long(folder):
    store = folder()
    Bench(store, LOCKSTEP.replace("trials: 12", "trials: 7")).run()
    assert Bench(store, LOCKSTEP).run() == Bench(folder(), LOCKSTEP).run()


@pytest.mark.slow
def test_a_trial_that_comes_no_further_is_left_to_the_next_driver(folder):
    store = folder()
    bench = Bench(store, LOCKSTEP, slots=2)
    bench.train = lambda run_id: bench.event("failed", run_id, reason="a node is gone", cause="lost")
    assert {state for *_, state, _ in bench.run()} == {"running"}
    assert Bench(store, LOCKSTEP).run() == Bench(folder(), LOCKSTEP).run()


@pytest.mark.slow
def test_optuna_is_told_how_trials_ended_and_names_what_mattered(folder):
    bench = Bench(folder())
    bench.run()
    sampling = OptunaSampling(bench.study)
    sampling.rebuild(trial for _, trial in bench.history)
    expected = {"finished": "COMPLETE", "stopped": "PRUNED", "failed": "FAIL"}
    states = [trial.state.name for trial in sampling.optuna_study.trials]
    assert states == [expected[trial.state] for _, trial in bench.history]
    whole = Bench(folder(), STUDY.replace("asha", "none"))
    whole.run()
    for evaluator in EVALUATORS:
        shares = importances(whole.study, whole.history, evaluator)
        assert "distill.pea.weight" in shares and sum(shares.values()) == pytest.approx(1)
        assert importances(whole.study, whole.history[:9], evaluator) == {}, "too few to tell"
        assert importances(bench.study, bench.history, evaluator) == {}, "too few were not stopped"
