"""TensorBoard and Weights & Biases hold of each run what the ledger holds: every epoch once, whoever sent it."""

import json
import sys
from importlib.util import find_spec

import pytest

from orchestrator.store.epochs import Epochs
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger
from orchestrator.store.ledger_run import LedgerRun
from orchestrator.tracking.also import PACKAGES, TRACKERS, check_trackers
from orchestrator.tracking.mirror import Mirror
from orchestrator.tracking.run_record import Record
from orchestrator.tracking.tensorboard import TensorBoard
from trainer.config import UserError

CONFIG = {"optim": {"lr": 6.0e-5, "epochs": 4}, "student": {"name": "b0"}}
ARM = "Base / CSF <1>"


def record(folder, epochs, status="running", arm=ARM):
    found = Epochs()
    for epoch in range(1, epochs + 1):
        found.add(f"2026-01-01T00:0{epoch}:00+00:00", {"epoch": epoch, "loss": 1 / epoch, "val/miou": 10.0 * epoch})
    run = LedgerRun(
        "a" * 12, key="k", status=status, attempts=1, config=CONFIG, epochs=found, changed="2026-01-01T02:00:00+00:00"
    )
    return Record("demo", arm, 3, "arm", run, folder)


def scalars(folder):
    """(tag, step) -> values of all event files below a folder."""
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for path in sorted(folder.rglob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + length])
            data = data[12 + length + 4 :]
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    found.setdefault((value.tag, event.step), []).append(value.simple_value)
    return found


def expected(epochs):
    points = {}
    for epoch in range(1, epochs + 1):
        points |= {("epoch", epoch): epoch, ("loss", epoch): 1 / epoch, ("val/miou", epoch): 10.0 * epoch}
    return {key: [pytest.approx(value, rel=1e-6)] for key, value in points.items()}


def test_event_files_hold_each_epoch_once_whatever_process_wrote_them(tmp_path):
    first = TensorBoard(tmp_path)
    for epoch in (1, 2):
        first.send(record(tmp_path, epoch))
    assert scalars(tmp_path) == expected(2), "also while it trains"
    other = TensorBoard(tmp_path)  # a driver that goes on after the first was killed
    other.send(record(tmp_path, 3))
    other.send(record(tmp_path, 4, "finished"))
    assert scalars(tmp_path) == expected(4)
    (folder,) = {path.parent for path in tmp_path.rglob("events.out.tfevents.*")}
    assert folder.parent.parent == tmp_path / "demo", "the arm's name is one folder, whatever it holds"
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    TensorBoard(tmp_path).send(record(tmp_path, 4, "finished"))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before, "nothing is written twice"
    other.send(record(tmp_path, 4, "finished", arm="another"))
    assert len(list((tmp_path / "demo").iterdir())) == 2


@pytest.mark.parametrize("arm", ["..", ".", "\u57fa" * 100])
def test_each_arm_has_a_folder_of_its_own_whatever_its_name(tmp_path, arm):
    for name in (arm, f"{arm} b"):
        TensorBoard(tmp_path).send(record(tmp_path, 1, "finished", arm=name))
    assert len(list((tmp_path / "demo").iterdir())) == 2
    assert {path.name for folder in (tmp_path / "demo").iterdir() for path in folder.iterdir()} == {"seed 3"}


def test_a_mirror_sends_a_study_to_each_tracker_that_is_named(tmp_path, uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    store = Store(tmp_path / "store")
    ledger = Ledger(store.ledger)
    run = {"run_id": "a" * 12, "key": "k", "study": "demo", "arm": "only", "seed": 0, "role": "arm"}
    ledger.append({"event": "started", "config": CONFIG, **run})
    ledger.append({"event": "epoch", "run_id": run["run_id"], "metrics": {"epoch": 1.0, "loss": 0.5}})
    ledger.append({"event": "finished", "last": {"epoch": 1.0, "loss": 0.5}, **run})
    mirror = Mirror("demo", store, ["tensorboard"])
    mirror.send(run["run_id"], "only", 0, "arm")
    assert mirror.close([], finished=True) == set()
    assert scalars(store.root / "tensorboard")["loss", 1] == [0.5]


def test_what_is_not_installed_is_named_with_its_remedy(monkeypatch):
    assert PACKAGES.keys() == TRACKERS.keys()
    check_trackers(["tensorboard"])
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(
        UserError, match=r"^tracking: wandb needs wandb, not installed here; pip install 'transkd\[wandb\]'"
    ):
        check_trackers(["wandb"])


def log_records(data):
    """The records of a file of wandb: LevelDB's log format behind seven bytes of its own."""
    record, at = b"", 7
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("wandb") is None, reason="wandb is not installed: pip install 'transkd[wandb]'")
def test_weights_and_biases_gets_a_run_whole_and_once(tmp_path, monkeypatch):
    import wandb
    from wandb.proto.wandb_internal_pb2 import Record as Logged

    monkeypatch.setenv("WANDB_MODE", "offline")
    tracker = TRACKERS["wandb"](tmp_path)
    tracker.send(record(tmp_path, 2))
    assert not list(tmp_path.rglob("*.wandb")), "a run is sent when it has ended"
    for _ in range(2):
        tracker.send(record(tmp_path, 3, "finished"))
    wandb.teardown()  # its own process writes the end of a file when it ends, at the latest
    (file,) = tmp_path.rglob("*.wandb")
    rows, configs = [], {}
    for data in log_records(file.read_bytes()):
        logged = Logged.FromString(data)
        if logged.HasField("history"):
            rows.append({"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in logged.history.item})
        if logged.HasField("run"):
            run = logged.run
            configs |= {item.key: json.loads(item.value_json) for item in run.config.update}
    assert [(row["_step"], row["val/miou"]) for row in rows] == [(1, 10.0), (2, 20.0), (3, 30.0)]
    assert (run.run_group, run.project, run.run_id) == (ARM, "transkd-demo", "a" * 12)
    assert configs["optim"] == CONFIG["optim"]
