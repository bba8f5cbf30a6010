"""`transkd doctor`: what is wrong with a machine, a store or a cluster is one line with its remedy."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from cluster.spec import ClusterSpec
from orchestrator.health import before_a_study, refusal, store_works, token, tracking
from orchestrator.prepare.checks import (
    CLOCK_S,
    GIB,
    cluster,
    data,
    disk,
    gpu,
    requirements,
    shared_memory,
    versions,
)
from orchestrator.prepare.machine import Gpus
from orchestrator.prepare.machine_facts import Facts, facts, fingerprint, version
from orchestrator.running.ray_session import check_address
from orchestrator.store.folder import Store
from orchestrator.verbs.doctor import doctor
from trainer.config import UserError

ROOT = Path(__file__).parents[2]
PROCESSES = ["unshare", "--map-root-user", "--pid", "--fork", "--mount-proc"]
"""Runs a command that sees none of this machine's processes."""
H200 = Gpus(("NVIDIA H200",), 1, "570.1", "12.8", "12.6")
NODE = Facts(
    "node", {"Python": "3.11.7", "torch": "2.11.0"}, Gpus(), 8 * GIB, {"/store": 50 * GIB}, {"camvid": "aa"}, 9.0
)
SPEC = ClusterSpec(address="head:6379", data_roots={"camvid": "/data/camvid"})


def test_what_is_installed_is_in_the_ranges_that_the_project_states() -> None:
    needed = requirements()
    assert {"Python", "torch", "ray", "mlflow", "optuna"} <= {one.name for one in needed}
    assert "pytest" not in {one.name for one in needed}
    installed = facts([one.name for one in needed if one.name != "Python"], [], {}).packages
    (line,) = versions(installed, needed)
    assert line.state == "ok" and f"torch {version('torch')}" in line.found


def test_a_package_out_of_its_range_or_missing_is_named() -> None:
    needed = [Requirement("Python>=3.11"), Requirement("torch>=2.11,<2.13"), Requirement("ray>=2.60")]
    old, missing = versions({"Python": "3.11.2", "torch": "2.10.1+cpu"}, needed)
    assert old.found == "torch 2.10.1+cpu is installed, and <2.13,>=2.11 is needed"
    assert (old.state, old.remedy) == ("problem", "pip install 'torch<2.13,>=2.11'")
    assert missing.found == "no ray is installed, and >=2.60 is needed"
    (line,) = versions({"Python": "3.10.1", "torch": "2.12.0+cu128", "ray": "2.60.0"}, needed)
    assert line.found == "Python 3.10.1 is installed, and >=3.11 is needed"


@pytest.mark.parametrize(
    ("there", "per_worker", "state", "found"),
    [
        (Gpus(), 0, "ok", "none: runs train on CPUs"),
        (Gpus(), 1, "problem", "no GPU, and each worker needs 1"),
        (H200, 0.5, "ok", "1 GPU (NVIDIA H200), driver 570.1, CUDA 12.6; each worker needs 0.5"),
        (H200, 0, "warning", "1 GPU (NVIDIA H200), driver 570.1, CUDA 12.6, but runs train on CPUs"),
        (Gpus((), 2, "570.1", "12.8"), 1, "problem", "torch cannot use the 2 GPUs here: it is built for CPUs only"),
        (
            Gpus((), 1, "470.2", "11.4", "12.6", "old"),
            0,
            "warning",
            "torch cannot use the 1 GPU here: it is built for CUDA 12.6, and driver 470.2 knows 11.4",
        ),
        (Gpus((), 1, "570.1", "12.8", "12.6", "busy"), 1, "problem", "torch cannot use the 1 GPU here: busy"),
    ],
)
def test_whether_a_gpu_would_be_used_and_why_not(
    there: Gpus, per_worker: float, state: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    line = gpu(there, per_worker)
    assert (line.state, line.found, bool(line.remedy)) == (state, found, state != "ok")


def test_a_gpu_that_the_environment_hides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    line = gpu(Gpus((), 1, "570.1", "12.8", "12.6", "No CUDA GPUs are available"), 1)
    assert line.found == "torch cannot use the 1 GPU here: CUDA_VISIBLE_DEVICES is ''"


def test_room_on_disks_and_in_shared_memory() -> None:
    assert [disk("disk", "/x", int(free * GIB)).state for free in (0.5, 5, 50)] == ["problem", "warning", "ok"]
    assert [line.state for size in (None, 64 * 2**20, 2 * GIB) for line in shared_memory(size)] == ["warning", "ok"]


def test_a_store_that_can_be_used_and_one_that_cannot(tmp_path: Path) -> None:
    store = Store(tmp_path / "new" / "store")
    assert store_works(store).state == "ok"
    assert not list(tmp_path.iterdir()), "nothing is left behind"
    refused = store_works(Store(Path("/proc/transkd")))
    assert (refused.state, refused.remedy) == ("problem", "name a folder that you may write, with --store")


def test_ports_of_the_head_that_answer_and_that_do_not() -> None:
    with socket.socket() as head, socket.socket() as closed:
        for each in (head, closed):
            each.bind(("127.0.0.1", 0))
        head.listen()
        ports = {name: f"127.0.0.1:{each.getsockname()[1]}" for name, each in (("GCS", head), ("dashboard", closed))}
        assert facts([], [], {}, ports).unreached == {
            f"dashboard at {ports['dashboard']}": "[Errno 111] Connection refused"
        }


def test_what_is_wrong_here_is_said_before_a_study_and_a_store_that_cannot_be_written_stops_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("orchestrator.prepare.checks.FREE_GIB", 10**9)
    found = before_a_study(Store(tmp_path / "store"))
    assert {line.state for line in found} == {"warning"} and found[-1].what == "disk of Ray"
    monkeypatch.setattr("orchestrator.prepare.checks.NEEDED_GIB", 10**9)
    assert {line.state for line in before_a_study(Store(tmp_path / "store"))} == {"warning"}
    assert "problem" in {line.state for line in before_a_study(Store(Path("/proc/transkd")))}


def test_a_mistake_that_is_told_already_is_told_with_its_remedy() -> None:
    def check() -> None:
        raise UserError("TMPDIR is too long: /x; y; set RAY_TMPDIR")

    assert refusal("Ray", check, "fine") == ("Ray", "problem", "TMPDIR is too long: /x; y", "set RAY_TMPDIR")
    assert refusal("Ray", lambda: None, "fine") == ("Ray", "ok", "fine", "")


def test_the_token_that_a_cluster_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    assert token() == []
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    assert [line.state for line in token()] == ["problem"]
    (tmp_path / "token").write_text("hunter2")
    (line,) = token()
    assert line.state == "ok" and "hunter2" not in line.found


@pytest.mark.slow
def test_tracking_that_cannot_be_reached_is_told_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking(store).state == "ok"
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:hunter2@127.0.0.1:{closed.getsockname()[1]}")
        line = tracking(store)
    assert line.state == "warning" and "hunter2" not in line.found
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://x")
    assert tracking(store).state == "problem"


def test_folders_of_data_are_compared_by_names_and_sizes(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for root in (one, other):
        (root / "images").mkdir(parents=True)
        (root / "images" / "a.png").write_bytes(b"123")
    assert fingerprint(one) == fingerprint(other) != ""
    (other / "images" / "a.png").write_bytes(b"1234")
    assert fingerprint(one) != fingerprint(other)
    (other / "images" / "a.png").rename(other / "images" / "b.png")
    assert len({fingerprint(root) for root in (one, other, tmp_path / "absent")}) == 3
    assert fingerprint(tmp_path / "absent") == ""
    here = replace(NODE, roots={"camvid": ""})
    assert [line.state for line in data(here, SPEC)] == ["problem"]


def test_machines_that_are_as_the_drivers_are_one_line_each() -> None:
    lines = cluster(NODE, {"10.0.0.1": NODE, "10.0.0.2": replace(NODE, gpus=H200)}, {}, (8.0, 10.0), SPEC)
    assert [(line.what, line.state) for line in lines] == [("10.0.0.1", "ok"), ("10.0.0.2", "ok")]


@pytest.mark.parametrize(
    ("changes", "state", "found"),
    [
        ({"packages": {"Python": "3.11.7", "torch": "2.12.0"}}, "problem", "torch 2.12.0, and the driver has 2.11.0"),
        ({"packages": {"Python": "3.11.7"}}, "problem", "torch is missing, and the driver has 2.11.0"),
        (
            {"gpus": Gpus((), 1, "570.1", "12.8")},
            "warning",
            "torch cannot use the 1 GPU here: it is built for CPUs only",
        ),
        ({"shm_bytes": 64 * 2**20}, "warning", "0.1 GiB"),
        ({"free_bytes": {"/store": 0}}, "problem", "0.0 GiB free at /store"),
        ({"roots": {"camvid": ""}}, "problem", "no file of camvid in /data/camvid"),
        ({"roots": {"camvid": "bb"}}, "problem", "other files of camvid in /data/camvid than the driver's"),
        (
            {"unreached": {"dashboard at 10.0.0.1:8265": "timed out"}},
            "problem",
            "it cannot reach the head's dashboard at 10.0.0.1:8265 (timed out)",
        ),
        ({"time_s": 10 + CLOCK_S + 58}, "warning", "its clock differs by 60 s"),
        ({"time_s": -60.0}, "warning", "its clock differs by 68 s"),
    ],
)
def test_what_differs_on_a_machine_is_named(changes: dict[str, object], state: str, found: str) -> None:
    (line,) = cluster(NODE, {"10.0.0.1": replace(NODE, **changes)}, {}, (8.0, 10.0), SPEC)  # type: ignore[arg-type]
    assert (line.state, line.found, "10.0.0.1" in line.what, bool(line.remedy)) == (state, found, True, True)


def test_a_machine_without_an_answer_and_a_cluster_without_a_gpu() -> None:
    spec = SPEC.model_copy(update={"gpus_per_worker": 1})
    lines = cluster(NODE, {"10.0.0.1": NODE}, {"10.0.0.2": "no answer within 120 s"}, (8.0, 10.0), spec)
    assert [(line.what, line.state) for line in lines] == [
        ("10.0.0.2", "problem"),
        ("10.0.0.1", "ok"),
        ("GPU", "problem"),
    ]
    assert cluster(NODE, {"a": NODE}, {}, (8.0, 10.0), spec.model_copy(update={"max_gpus": 8}))[-1].state == "ok"


@pytest.mark.slow
def test_a_problem_is_exit_code_1_and_stands_in_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text(f"data_roots: {{camvid: {tmp_path}/absent}}\n", encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        doctor(cluster=str(tmp_path / "mine.yaml"), store=tmp_path / "store", step=False)
    out = capsys.readouterr().out
    assert ended.value.code == 1 and out.endswith("1 problem to mend\n")
    assert re.search(rf"data camvid +problem +no file in {tmp_path}/absent +correct data_roots, or mount it", out)
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
def test_a_cluster_that_does_not_answer_is_not_joined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        (tmp_path / "mine.yaml").write_text(f"address: {address}\n", encoding="utf-8")
        with pytest.raises(SystemExit, match="1"):
            doctor(cluster=str(tmp_path / "mine.yaml"), store=tmp_path / "store")
    assert re.search(rf"^Ray +problem +address: no Ray answers at {address}", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.slow
def test_where_auto_finds_a_dead_ray_it_is_said_before_anything_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")  # Ray may name this machine's address instead
        with pytest.raises(UserError, match=rf"^address: no Ray answers at [\d.]+:{port} \(.*; start one there with"):
            check_address("auto")


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run([*PROCESSES, "true"], check=False).returncode != 0,
    reason="processes of a process's own need unshare and its permission",
)
def test_where_auto_finds_no_ray_it_is_said_before_anything_is_joined(tmp_path: Path) -> None:
    ask = "from orchestrator.running.ray_session import check_address; check_address('auto')"
    done = subprocess.run(
        [*PROCESSES, sys.executable, "-P", "-c", ask],
        env={
            **{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
            "PYTHONPATH": str(ROOT),
            "RAY_TMPDIR": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert "UserError: address: auto joins the Ray of this machine, and none runs here" in done.stderr


@pytest.mark.slow
def test_the_command_of_the_guide_for_this_machine_works(tmp_path: Path) -> None:
    section = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8").partition("## Before the first run\n")[2]
    first = next(line for line in section.splitlines() if line.startswith("    transkd doctor"))
    words = first.partition("#")[0].split()
    done = subprocess.run(
        [sys.executable, "-P", "-m", "orchestrator", *words[1:]],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TRANSKD_STORE": str(tmp_path / "store")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    for what in ("versions", "GPU", "Ray", "disk of the store", "store", "MLflow", "step"):
        assert re.search(rf"^{what} ", done.stdout, re.MULTILINE), done.stdout
