"""A driver killed half way and started again ends as if nothing had happened."""

import re
import signal
import sqlite3
import time

import pytest
from mlflow import MlflowClient

from orchestrator.store.ledger import Ledger

pytestmark = [pytest.mark.slow, pytest.mark.ray]


def half_way(driver):
    """An arm has finished, and another is past its first epoch and not at its end."""
    ended = {event["run_id"] for event in driver.events("finished", "failed")}
    arms_done = any(event["role"] == "arm" for event in driver.events("finished"))
    begun = [event["run_id"] for event in driver.events("started") if event["run_id"] not in ended]
    return arms_done and any(len(driver.epochs(run_id)) in (1, 2) for run_id in begun)


def training(driver):
    """Processes that a driver of this store has for its runs; an agent of Ray's may linger, and trains nothing."""
    return [command for command in driver.processes().values() if "ray::" in command and "Agent" not in command]


def mirrored(driver):
    """(arm, seed) -> MLflow's runs of it, and the statuses of all runs, the study's own included."""
    client = MlflowClient(tracking_uri=f"sqlite:///{driver.store}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("transkd/tiny").experiment_id])
    found = {}
    for run in runs:
        tags = run.data.tags
        if tags["transkd.role"] != "study":
            steps = [point.step for point in client.get_metric_history(run.info.run_id, "loss")]
            found.setdefault((tags["transkd.arm"], int(tags["transkd.seed"])), []).append((run.info.status, steps))
    return found, {run.info.status for run in runs}


def test_a_driver_killed_and_started_again_ends_with_the_undisturbed_table(driver, finished):
    driver.kill_when(driver.start("run", finished.file), lambda: half_way(driver))
    ended = {event["run_id"] for event in driver.events("finished", "failed")}
    cut = {event["run_id"] for event in driver.events("started")} - ended
    assert cut
    end = time.monotonic() + 60
    while training(driver) and time.monotonic() < end:
        time.sleep(0.2)
    assert not training(driver), "what trains goes with its driver"
    said = driver("status", finished.file).out
    assert f"{len(cut)} interrupted" in said and "driver: none" in said

    again = driver("run", finished.file)
    assert again.code == finished.done.code == 1
    assert driver.numbers() == finished.driver.numbers()
    assert driver.table() == finished.driver.table()
    assert again.out.endswith(finished.driver.table())

    runs = Ledger(driver.store / "ledger.jsonl").outcomes()
    assert {runs[run_id].attempts for run_id in cut} == {2}
    assert all(runs[run_id].attempts == 1 for run_id in ended if runs[run_id].status == "finished")
    found, statuses = mirrored(driver)
    expected, _ = mirrored(finished.driver)
    assert found == expected
    assert all(len(copies) == 1 for copies in found.values())
    assert statuses == {"FINISHED", "FAILED"}


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "a job's time is up"])
def test_being_told_to_end_is_one_line_and_leaves_nothing_running(driver, finished, sign):
    process = driver.start("run", finished.file)
    end = time.monotonic() + 300
    said = ""
    # asking takes seconds, in which the run that was asked about may end: between two phases none is running
    while " running" not in said and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
        said = driver("status", finished.file).out if driver.events("started") else ""
    assert re.search(rf"running.*; driver: pid {process.pid} on ", said)
    assert re.search(r"^  [\w -]+ seed \d: running at epoch [0-3]/[23]", said, re.MULTILINE)
    before = len(driver.events("finished"))
    process.send_signal(sign)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err == "stopped; run the same command again to go on\n"
    with sqlite3.connect(driver.store / "mlflow.db") as database:
        assert database.execute("select count(*) from runs where status = 'RUNNING'").fetchone() == (0,)
    assert len(driver.events("finished")) <= before + 2, "no further run starts"
