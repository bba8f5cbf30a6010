"""`transkd submit`: a study as a job, followed, stopped, submitted again, found by its name."""

import os
import subprocess
import sys
import time

import pytest

from orchestrator.store.ledger import Ledger
from orchestrator.submit import ray_jobs
from trainer.config import UserError

SLOW = """
name: slow
base:
  data: {name: scenes, size: [64, 128], options: {train: 16, val: 8, size: [64, 128]}}
  student: {name: segformer_tiny}
  optim: {lr: 1.0e-3, epochs: 120, global_batch: 8}
variants: {one: {}, other: {optim.lr: 3.0e-3}}
"""


def events(store):
    return [event for _, event in Ledger(store / "ledger.jsonl").whole()]


@pytest.mark.slow
@pytest.mark.ray
def test_a_study_is_submitted_followed_stopped_and_submitted_again(head, checkout, surroundings, tmp_path):
    store, slow = tmp_path / "store", tmp_path / "slow.yaml"
    slow.write_text(SLOW)
    who = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    for words in (("init",), ("add", "-A"), (*who, "commit", "-m", "sent")):
        subprocess.run(["git", "-C", str(checkout), *words], check=True, capture_output=True)
    commit = subprocess.check_output(["git", "-C", str(checkout), "rev-parse", "HEAD"], text=True).strip()
    pipe = subprocess.PIPE
    options = {"cwd": checkout, "env": {**surroundings, "RAY_API_SERVER_ADDRESS": head}, "text": True}

    def start(*words):
        return subprocess.Popen([sys.executable, "-m", "orchestrator", *words], stdout=pipe, stderr=pipe, **options)

    def run(*words):
        process = start(*words)
        out, err = process.communicate(timeout=400)
        return process.returncode, out, err

    code, out, err = run("submit", str(slow), "--store", str(store), "--no-follow")
    assert code == 0, out + err
    assert "slow: " in err and "the largest: " in err and "`transkd job stop slow` ends it" in err
    assert run("job", "status", "slow")[1].startswith("slow: raysubmit_")
    code, _, err = run("submit", str(slow), "--store", str(store))
    assert code == 2 and "study slow is " in err and "end it with `transkd job stop slow`" in err
    end = time.monotonic() + 240
    while not any(event["event"] == "epoch" for event in events(store)):
        assert time.monotonic() < end
        time.sleep(0.5)
    following = start("job", "logs", "slow")
    while "slow: checking the structures" not in (line := following.stdout.readline()):  # what was said so far
        assert line, following.communicate()
    following.terminate()
    following.communicate()
    code, out, err = run("job", "stop", "slow")
    assert (code, err) == (0, "") and out.endswith(": stopped\n")
    code, _, err = run("job", "stop", "slow")
    assert code == 2 and "study slow has no job that runs" in err
    assert (store / "studies" / "slow" / "table.txt").exists(), "the driver had the time to write its report"
    launch = next(event for event in events(store) if event["event"] == "study")
    assert launch["environment"]["git"] == {"commit": commit, "dirty": False}

    before = {event["run_id"]: event for event in events(store) if event["event"] == "epoch"}
    code, out, err = run("submit", str(slow), "--store", str(store))
    assert code == 0, out + err
    assert "goes on after epoch" in out and "slow   val mIoU" in out
    finished = {event["run_id"] for event in events(store) if event["event"] == "finished"}
    assert len(finished) == 2 and before.keys() <= finished
    code, _, err = run("job", "logs", "quick")
    assert code == 2 and "no job of study quick was submitted to this cluster; studies with jobs: slow" in err


@pytest.mark.slow
def test_where_no_ray_answers_it_is_said_without_the_password(monkeypatch, capsys):
    with pytest.raises(UserError, match=r"no Ray answers at http://\*\*\*@127\.0\.0\.1:9") as error:
        ray_jobs.connect("http://me:hunter2@127.0.0.1:9")
    assert "hunter2" not in str(error.value) and os.linesep not in str(error.value)


@pytest.mark.parametrize("raised", [ConnectionError("reset by http://me:hunter2@h"), RuntimeError("code 1006")])
def test_a_lost_connection_says_that_the_job_goes_on_and_a_fault_of_ours_is_raised(raised):
    class Lost:
        def list_jobs(self):
            raise raised

    with pytest.raises(UserError, match=r"the connection to Ray was lost \(") as error:
        ray_jobs.jobs_of(Lost())
    assert "hunter2" not in str(error.value)
    with pytest.raises(AttributeError):
        ray_jobs.jobs_of(object())
