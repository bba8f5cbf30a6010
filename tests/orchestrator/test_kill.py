"""A driver that is told to end says so in one line; test_chaos.py kills it."""

import re
import signal
import sqlite3
import time

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.ray]

QUEUE, EPOCHS = 40, 30
"""More runs and epochs than a driver trains while it is asked for its status and told to end."""


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "a job's time is up"])
def test_being_told_to_end_is_one_line_and_leaves_nothing_running(driver, study, sign):
    file = study(variants={"student alone": {"distill": {}, "optim.epochs": EPOCHS}}, seeds=QUEUE)
    process = driver.start("run", file)
    end = time.monotonic() + 540
    said = ""
    # asking takes seconds, in which the run that was asked about may end: between two phases none is running
    while " running" not in said and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
        said = driver.here("status", file).out if driver.events("started") else ""
    assert re.search(rf"running.*; driver: pid {process.pid} on ", said)
    assert re.search(rf"^  [\w -]+ seed \d+: running at epoch \d+/{EPOCHS}", said, re.MULTILINE)
    process.send_signal(sign)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err == "stopped; run the same command again to go on\n"
    with sqlite3.connect(driver.store / "mlflow.db") as database:
        assert database.execute("select count(*) from runs where status = 'RUNNING'").fetchone() == (0,)
    assert len(driver.events("started")) < QUEUE / 2, "no further run starts"
