"""A full disk pauses a study in one line, and with room again it goes on; MLflow's own full disk costs nothing."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from orchestrator.store.full_disk import StoreFull, pausing
from orchestrator.store.ledger import Ledger

MOUNTS = ["unshare", "--map-root-user", "--mount"]
"""What follows may mount a file system of its own, without being root."""


def test_a_ledger_on_a_full_disk_pauses_in_words(tmp_path):
    (tmp_path / "ledger.jsonl").symlink_to("/dev/full")
    with pytest.raises(
        StoreFull, match=rf"No space left on device; the store {tmp_path} is on /.* MiB left; make room"
    ):
        Ledger(tmp_path / "ledger.jsonl").append({"event": "started", "run_id": "one"})


@pytest.mark.parametrize(
    ("path", "place"),
    [("/proc/full", "/proc/full is on /proc"), ("{store}/runs/one/last.pt", "the store {store} is on /")],
)
def test_the_file_system_of_the_file_that_did_not_fit_is_named(path, place, tmp_path):
    path, place = (text.format(store=tmp_path) for text in (path, place))
    with (
        pytest.raises(
            StoreFull, match=rf"No space left on device: '{path}'; {place}.*, which has .* MiB left; make room"
        ),
        pausing(tmp_path),
    ):
        raise OSError(errno.ENOSPC, "No space left on device", path)


def test_what_is_left_is_told_in_mebibytes(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda mount: SimpleNamespace(free=3.5 * 1024 * 1024))
    with pytest.raises(StoreFull, match=r"which has 3\.5 MiB left; make room"), pausing(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")


def small_disks(folder, study):
    """The test's other half, in a name space of its own: fill the disk under a driver, and start it again."""
    disks = {"work": "24m", "tracking": "1m"}
    for name, size in disks.items():
        (folder / name).mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder / name], check=True)
    store, ballast = folder / "work" / "store", folder / "work" / "ballast"
    uri = f"sqlite:///{folder}/tracking/mlflow.db"

    def fill(path):
        with path.open("wb", buffering=0) as file:
            for size in (2**20, 2**12, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    continue

    def files():
        return {
            path.name: [p.name for p in path.iterdir() if p.name.startswith(".") and p.name != ".lock"]
            for path in store.glob("runs/*")
        }

    fill(folder / "tracking" / "ballast")  # MLflow has no room from the start
    command = [sys.executable, "-m", "orchestrator", "run", study, "--store", store]
    env = {**os.environ, "MLFLOW_TRACKING_URI": uri}
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, env=env, cwd=folder, stdout=pipe, stderr=pipe, text=True)

    def wait(moment):
        while process.poll() is None and not moment():
            time.sleep(0.01)

    wait(lambda: any(store.glob("runs/*/config.yaml")))  # the run has begun
    process.send_signal(signal.SIGSTOP)  # its run waits for it with the report of an epoch, and writes nothing then
    wait(lambda: any(path.read_text() for path in store.glob("runs/*/epochs.jsonl")))
    fill(ballast)
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate()
    paused = {"code": process.returncode, "out": out, "err": err, "partial": files()}
    ballast.unlink()
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, check=False)
    events = [event for _, event in Ledger(store / "ledger.jsonl").whole()]
    print(
        json.dumps(
            {"paused": paused, "code": done.returncode, "out": done.stdout, "err": done.stderr, "events": events}
        )
    )


@pytest.mark.slow
@pytest.mark.ray
def test_a_full_disk_pauses_the_study_and_room_lets_it_go_on(driver, tmp_path):
    if not shutil.which("unshare") or subprocess.run([*MOUNTS, "true"], check=False, capture_output=True).returncode:
        pytest.skip("mounting a small file system takes user name spaces, which this machine does not allow")
    study = {
        "name": "small",
        "base": {
            "data": {"name": "scenes", "size": [32, 64], "options": {"train": 8, "val": 2, "size": [32, 64]}},
            "student": {"name": "segformer_tiny"},
            "optim": {"lr": 1.0e-3, "epochs": 12, "global_batch": 4},
        },
        "variants": {"student": {}},
        "seeds": [0],
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(study))
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_full_disk as other; "
    program += "from pathlib import Path; other.small_disks(Path(sys.argv[1]), sys.argv[2])"
    command = [*MOUNTS, sys.executable, "-c", program, tmp_path, tmp_path / "small.yaml"]
    both = subprocess.run(command, env=driver.env, capture_output=True, text=True, timeout=540, check=False)
    assert both.returncode == 0, both.stderr
    said = json.loads(both.stdout.splitlines()[-1])

    paused = said["paused"]
    last = paused["err"].splitlines()[-1]
    assert paused["code"] == 3, paused["err"]
    assert last.startswith("paused: OSError: [Errno 28] No space left on device")
    assert f"the store {tmp_path}/work/store is on {tmp_path}/work, which has 0.0 MiB left" in last
    assert "Traceback" not in paused["err"]
    assert list(paused["partial"].values()) == [[]], "what was half written is gone"

    assert said["code"] == 0, said["err"]
    assert "Traceback" not in said["err"]
    kinds = [event["event"] for event in said["events"] if event.get("run_id") and event["event"] != "epoch"]
    assert kinds == ["started", "interrupted", "started", "finished"]
    epochs = [event["metrics"]["epoch"] for event in said["events"] if event["event"] == "epoch"]
    assert epochs == list(range(1, 13)), "each epoch once: it went on where the disk was full"
