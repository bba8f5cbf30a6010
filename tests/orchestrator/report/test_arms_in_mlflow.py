"""An arm over its seeds is a run of MLflow: the numbers of the table, the mean curve, and its seeds below it."""

import math
import statistics

import pytest

from orchestrator.report.table import table
from orchestrator.state.study_state import StudyState
from orchestrator.store.ledger import Ledger
from orchestrator.tracking.arm_record import arm_records
from orchestrator.tracking.mirror import sync

ARMS = ("student alone", "Base <both>", "without PEA & CSF")


def state(made):
    return StudyState(made.study, Ledger(made.store.ledger))


def send(made):
    found = state(made)
    sent, left = sync(found, made.store, [], arm_records(found, table(found)))
    assert not left
    return sent


def runs_of(client, study):
    """Name -> run of MLflow, of all that are not deleted."""
    found = client.search_runs([client.get_experiment_by_name(f"transkd/{study}").experiment_id])
    names = [run.info.run_name for run in found]
    assert len(names) == len(set(names))
    return dict(zip(names, found, strict=True))


def scores(made, arm):
    found = state(made)
    runs = [run for run in found.runs if run.plan.arm == arm and run.finished]
    return {run.plan.seed: run.run for run in runs}


@pytest.mark.slow
def test_numbers_curve_and_place_of_an_arm(synthetic, client, uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    made = synthetic()
    for _ in range(2):
        send(made)
        found = runs_of(client, "arms")
    parent = found["arms"].info.run_id
    finals = {}
    for arm in ARMS:
        mine, runs = found[arm], scores(made, arm)
        finals[arm] = {seed: run.last["val/miou"] for seed, run in runs.items()}
        values = list(finals[arm].values())
        metrics = mine.data.metrics
        assert mine.data.tags["mlflow.parentRunId"] == parent
        assert mine.info.status == "FINISHED"
        assert metrics["seeds/n"] == 6
        assert metrics["seeds/mean"] == pytest.approx(statistics.mean(values))
        assert metrics["seeds/std"] == pytest.approx(statistics.stdev(values))
        curve = {point.step: point.value for point in client.get_metric_history(mine.info.run_id, "val/miou")}
        epochs = {seed: [row["val/miou"] for row in run.epochs] for seed, run in runs.items()}
        assert curve == {
            epoch: pytest.approx(statistics.mean(own))
            for epoch, own in enumerate(zip(*epochs.values(), strict=True), 1)
        }
        for seed in range(6):
            assert found[f"{arm} seed {seed}"].data.tags["mlflow.parentRunId"] == mine.info.run_id
    paired = [finals["Base <both>"][seed] - finals["student alone"][seed] for seed in range(6)]
    assert found["Base <both>"].data.metrics["difference"] == pytest.approx(statistics.mean(paired))
    rows = {row.values["arm"]: row.values for row in table(state(made)).rows if "reference" in row.values}
    for arm in ARMS[1:]:
        mine, row = found[arm].data, rows[arm]
        names = {"difference": "difference", "difference/low": "interval_low", "difference/high": "interval_high"}
        for name, key in {**names, "p": "p"}.items():
            if math.isfinite(row[key]):
                assert mine.metrics[name] == pytest.approx(row[key])
            else:
                assert name not in mine.metrics, "MLflow has no number for infinity"
        assert mine.tags["transkd.vs"] == row["reference"]
        assert mine.tags["transkd.verdict"] == row["verdict"]
        assert mine.metrics["verdict"] == {"better": 1, "worse": -1}.get(row["verdict"], 0)
    assert "difference" not in found["student alone"].data.metrics
    assert found["without PEA & CSF"].data.params == {"distill.pea": "null"}


@pytest.mark.slow
def test_an_arm_whose_seeds_have_not_ended_has_none_and_one_that_changed_is_replaced(
    synthetic, client, uri, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    made = synthetic(ends={("Base <both>", 5): None, ("student alone", 5): "failed"})
    send(made)
    found = runs_of(client, "arms")
    assert "Base <both>" not in found
    assert found["Base <both> seed 0"].data.tags["mlflow.parentRunId"] == found["arms"].info.run_id
    assert found["student alone"].data.metrics["seeds/n"] == 5
    before = found["student alone"].info.run_id
    whole = synthetic(where="whole")
    lines = whole.store.ledger.read_text(encoding="utf-8")
    made.store.ledger.write_text(lines, encoding="utf-8")
    send(made)
    found = runs_of(client, "arms")
    assert found["Base <both>"].data.metrics["seeds/n"] == found["student alone"].data.metrics["seeds/n"] == 6
    assert found["student alone"].info.run_id != before
    for arm in ARMS:
        for seed in range(6):
            run = found[f"{arm} seed {seed}"]
            assert run.data.tags["mlflow.parentRunId"] == found[arm].info.run_id


def test_a_search_and_a_study_of_one_seed_have_no_arms_over_seeds(synthetic):
    for kind in ("search", "costs"):
        made = synthetic(kind, where=kind)
        one = made.study.model_copy(update={"seeds": [0]}) if kind == "costs" else made.study
        found = StudyState(one, Ledger(made.store.ledger))
        assert arm_records(found, table(found)) == []
