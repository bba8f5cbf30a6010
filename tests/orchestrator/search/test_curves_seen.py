"""Values at rungs and running averages equal those computed from all curves anew, in whatever order trials train."""

import random
from statistics import fmean

import pytest

from ablations.study.search import Search
from ablations.study.trial import Trial
from orchestrator.search.curves_seen import FinishedAverages, RungValues
from orchestrator.state.proposals import Proposal
from orchestrator.store.ledger import Ledger

EPOCHS = 9
METRIC = "select/miou"


@pytest.mark.parametrize("brackets", [1, 2])
def test_rungs_and_averages_are_those_of_the_curves(tmp_path, brackets):
    rng = random.Random(brackets)
    search = Search(trials=8, stop="asha", eta=3, brackets=brackets, space={"optim.lr": {"log": [0.1, 1.0]}})
    ledger = Ledger(tmp_path / "ledger.jsonl")
    trials = [Proposal(f"run{number % 7}", Trial(number, {}, "running")) for number in range(8)]  # two share a run
    rungs, averages = RungValues(search, EPOCHS), FinishedAverages(METRIC)
    curves: dict[str, dict[int, float]] = {f"run{number}": {} for number in range(7)}
    stopped: set[str] = set()
    for _ in range(120):
        run_id = rng.choice(sorted(curves))
        epoch = len(curves[run_id]) + 1
        if epoch > EPOCHS:
            continue
        # a run that was stopped here may be trained further by another study
        if run_id not in stopped and rng.random() < 0.1 and epoch > 1:
            stopped.add(run_id)
            ledger.append({"event": "stopped", "run_id": run_id, "last": {"epoch": epoch - 1}})
            continue
        if run_id in stopped:
            ledger.append({"event": "started", "run_id": run_id})
            stopped.discard(run_id)
        curves[run_id][epoch] = rng.random()
        ledger.append_epochs(run_id, [{"epoch": float(epoch), METRIC: curves[run_id][epoch]}])
        runs = ledger.outcomes()
        for bracket in range(brackets):
            for rung in rungs.of(bracket):
                beside = [
                    curves[other] for other, t in trials if other != run_id and search.bracket(t.number) == bracket
                ]
                expected = [curve[rung] for curve in beside if rung in curve]
                assert rungs.at(bracket, rung, trials, runs, but=run_id) == expected
    done = [run_id for run_id, curve in curves.items() if len(curve) == EPOCHS]
    for epoch in range(1, EPOCHS + 1):
        expected = [fmean(curves[run_id][e] for e in range(1, epoch + 1)) for run_id in done]
        assert averages.at(epoch, done, ledger.outcomes()) == pytest.approx(expected)
    assert len(done) > 2 and expected
