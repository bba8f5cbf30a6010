"""A study in MLflow: a parent, a child a run, all of it once; and all of it again when the database is lost."""

import pytest
import yaml
from mlflow import MlflowClient

pytestmark = pytest.mark.slow


def content(driver, study="tiny"):
    """All that MLflow holds of a study but ids and times: {run name: (status, parent, params, points, files)}."""
    client = MlflowClient(tracking_uri=f"sqlite:///{driver.store}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name(f"transkd/{study}").experiment_id])
    names = {run.info.run_id: run.info.run_name for run in runs}
    assert len(names) == len(set(names.values())), "one run for each (variant, seed), and one for the study"
    found = {}
    for run in runs:
        points = {
            metric: [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, metric)]
            for metric in run.data.metrics
        }
        files = {file.path for file in client.list_artifacts(run.info.run_id)}
        parent = names.get(run.data.tags.get("mlflow.parentRunId"))
        found[run.info.run_name] = (run.info.status, parent, run.data.params, points, files)
    return found


def test_parent_children_parameters_points_and_files(finished):
    found = content(finished.driver)
    status, parent, _, _, files = found.pop("tiny")
    assert (status, parent) == ("FINISHED", None)
    assert {"table.md", "table.csv"} <= files
    assert len(found) == 7
    assert {name: status for name, (status, *_) in found.items() if status != "FINISHED"} == {
        "broken seed 0": "FAILED",
        "broken seed 1": "FAILED",
    }
    for (arm, seed, run_id), epochs in finished.driver.numbers().items():
        status, parent, params, points, files = found[f"{arm} seed {seed}"]
        assert parent == "tiny"
        assert files == {"config.yaml", "epochs.jsonl", "result.json", "best.pt", "panel.png", "per_class_iou.json"}
        config = yaml.safe_load((finished.driver.store / "runs" / run_id / "config.yaml").read_text())
        assert params["optim.lr"] == str(config["optim"]["lr"])
        assert params["student.name"] == config["student"]["name"]
        assert params["seed"] == str(seed)
        for metric in epochs[0]:
            assert points[metric] == [(epoch["epoch"], epoch[metric]) for epoch in epochs], metric


def test_a_lost_database_is_rebuilt_whole_and_twice_adds_nothing(finished):
    before = content(finished.driver)
    (finished.driver.store / "mlflow.db").unlink()
    for _ in range(2):
        done = finished.driver("sync", finished.file)
        assert (done.code, done.err) == (0, "")
        assert done.out == f"7 runs are up to date at sqlite:///{finished.driver.store}/mlflow.db\n"
        assert content(finished.driver) == before
