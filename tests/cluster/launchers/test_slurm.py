"""`sbatch cluster/slurm.sh STUDY` joins a job's nodes to one Ray before the study counts them. Slurm is played."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

import cluster
from cluster.concurrency import concurrency
from cluster.spec_file import load

SCRIPT = Path(cluster.__file__).parent / "slurm.sh"

SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""

STUDY = """#!{python}
import sys
import ray
ray.init(address="auto", log_to_driver=False)
print("study", *sys.argv[1:])
print("nodes", sum(node["Alive"] for node in ray.nodes()), "CPUs", int(ray.cluster_resources()["CPU"]))
sys.exit(3)
"""


@pytest.fixture
def job():
    """The environment of a job of two nodes, both this machine. Short paths: Ray's sockets live there."""
    folder = Path(tempfile.mkdtemp(prefix="ray-slurm-"))
    (folder / "bin").mkdir()
    for name, text in (("srun", SRUN), ("transkd", STUDY.format(python=sys.executable))):
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    (folder / ".ray").mkdir()
    (folder / ".ray" / "auth_token").write_text("0123456789abcdef" * 4)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "SLURM", "TRANSKD"))}
    yield {
        **inherited,
        "HOME": str(folder),
        "PATH": f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        "TRANSKD_STORE": str(folder / "store"),
        "SLURMD_NODENAME": "127.0.0.1",
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "1",
    }
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.ray
def test_the_study_starts_when_all_nodes_are_there_and_its_exit_code_is_the_jobs(job, in_a_session, tmp_path):
    log = tmp_path / "job.log"
    with log.open("w") as output:
        script = in_a_session([SCRIPT, "demo", "--workers", "2"], env=job, stdout=output, stderr=subprocess.STDOUT)
        code = script.wait(timeout=540)
    assert "study run --cluster slurm demo --workers 2" in log.read_text()
    assert "nodes 2 CPUs 2" in log.read_text()
    assert code == 3


@pytest.mark.parametrize(
    ("arguments", "lacking", "words"), [([], "", "name a study"), (["demo"], "TRANSKD_STORE", "every node mounts")]
)
def test_what_is_lacking_is_said_before_anything_starts(job, arguments, lacking, words):
    job.pop(lacking, None)
    done = subprocess.run([SCRIPT, *arguments], env=job, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode != 0
    assert words in done.stderr


def test_what_the_script_asks_of_a_node_serves_the_spec_of_its_name():
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", SCRIPT.read_text(), re.MULTILINE))
    spec = load("slurm")
    assert concurrency(spec, int(asked["cpus-per-task"]), int(asked["gpus-per-node"])) == 4


PLAYED_RAY = """#!/bin/bash
if [[ $1 == status ]]; then echo " node_1"; echo " node_2"; else sleep 60; fi
"""
PLAYED_DRIVER = """#!{python}
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit({stopped}))
print("driver started", flush=True)
if {end} is not None:
    os.kill(os.getpid(), -{end}) if {end} < 0 else sys.exit({end})
time.sleep(60)
"""


@pytest.fixture
def play(job, in_a_session, tmp_path):
    """play(how the driver ends, signal to the script) -> exit code of the job, what it asked of scontrol."""

    def call(end, sign=None, stopped=130, restarts=0):
        folder, asked, log = Path(job["HOME"]) / "bin", tmp_path / "asked", tmp_path / "job.log"
        driver = PLAYED_DRIVER.format(python=sys.executable + " -IS", end=end, stopped=stopped)
        for name, text in (
            ("ray", PLAYED_RAY),
            ("transkd", driver),
            ("scontrol", f'#!/bin/bash\necho "$@" >> {asked}\n'),
        ):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        env = {**job, "SLURM_RESTART_COUNT": str(restarts)}
        with log.open("w") as output:
            script = in_a_session([SCRIPT, "demo"], env=env, stdout=output, stderr=subprocess.STDOUT)
            end_s = time.monotonic() + 240
            while sign and "driver started" not in log.read_text() and time.monotonic() < end_s:
                time.sleep(0.05)
            if sign:
                script.send_signal(sign)
            code = script.wait(timeout=240)
        return code, asked.read_text() if asked.exists() else ""

    return call


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "sign", "code", "again"),
    [
        (0, None, 0, False),
        (1, None, 1, False),
        (2, None, 2, False),
        (-9, None, 137, True),  # the driver was killed
        (None, signal.SIGUSR1, 130, True),  # the time limit is near
        (None, signal.SIGTERM, 130, False),  # scancel
    ],
)
def test_a_job_goes_back_into_the_queue_where_its_study_has_not_ended(play, end, sign, code, again):
    done, asked = play(end, sign)
    assert (done, asked) == (code, f"requeue {os.getpid()}\n" if again else "")


@pytest.mark.slow
def test_a_study_that_ended_at_the_time_limit_does_not_come_back(play):
    assert play(None, signal.SIGUSR1, stopped=0) == (0, "")


@pytest.mark.slow
def test_a_driver_that_is_killed_each_time_stays_down(play):
    assert play(-9, restarts=20) == (137, "")
