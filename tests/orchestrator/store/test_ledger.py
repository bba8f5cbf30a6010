"""The ledger folds the events of runs, reads what was added once, and holds no password."""

import json
import math
import os
import time

import pytest

from orchestrator.store.ledger import Ledger
from orchestrator.store.ledger_run import Membership
from tests.orchestrator.store.run_events import started


def test_a_missing_ledger_is_empty_and_reading_does_not_make_it(path):
    assert list(Ledger(path).events()) == []
    assert Ledger(path).outcomes() == {}
    assert not path.parent.exists()


def test_a_ledger_holds_no_password_that_an_error_carries(path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:t0ken@h")
    secrets = "no http://u:hunter2@h, t0ken"
    ledger = Ledger(path)
    ledger.append(started("r", config={"note": secrets}))
    ledger.append({"event": "note", "run_id": "r", "text": secrets})
    ledger.append({"event": "told", "study": "s", "search": "x", "trials": [{"reason": secrets}]})
    ledger.append({"event": "trial", "number": 1, "values": {}, "end": {"event": "failed", "reason": secrets}})
    ledger.append({"event": "retried", "run_id": "r", "cause": "bug", "reason": secrets})
    ledger.append({"event": "failed", "run_id": "r", "cause": "bug", "reason": secrets})
    first, *rest = path.read_text().splitlines()
    assert secrets in first, "a config is what the run's id is made of"
    assert len(rest) == 5 and all("no http://***@h, ***" in line for line in rest)


def test_what_an_earlier_version_wrote_is_read_without_its_passwords(path):
    secrets = "password=hunter2"
    path.parent.mkdir()
    events = [
        started("r"),
        {"event": "note", "run_id": "r", "text": secrets},
        {"event": "told", "study": "s", "search": "x", "trials": [{"reason": secrets}]},
        {"event": "failed", "run_id": "r", "cause": "bug", "reason": secrets},
    ]
    path.write_text("".join(json.dumps({"time": "2026-01-01T00:00:00", **event}) + "\n" for event in events))
    run = Ledger(path).outcomes()["r"]
    assert (run.reason, run.notes) == ("password=***", ["password=***"])
    assert "hunter2" not in json.dumps(list(Ledger(path).events()))


def test_events_come_back_in_order_with_their_time(path):
    ledger = Ledger(path)
    for number in range(5):
        ledger.append({"event": "trial", "number": number, "values": {"optim.lr": 0.1}})
    events = list(Ledger(path).events())
    assert [e["number"] for e in events] == [0, 1, 2, 3, 4]
    assert [e["time"] for e in events] == sorted(e["time"] for e in events)
    assert events[0]["time"].endswith("+00:00")


def test_a_new_ledger_is_on_disk_with_its_folder(tmp_path, monkeypatch):
    path = tmp_path / "folders that are" / "not there yet" / "ledger.jsonl"
    synced, real = [], os.fsync

    def fsync(handle):
        synced.append(os.fstat(handle).st_ino)
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    ledger = Ledger(path)
    ledger.append(started("a"))
    assert synced == [path.stat().st_ino, path.parent.stat().st_ino]
    ledger.append(started("b"))
    assert synced[2:] == [path.stat().st_ino]


def test_an_event_has_a_kind(path):
    with pytest.raises(ValueError, match="'event'"):
        Ledger(path).append({"run_id": "r"})


def test_runs_are_folded(path):
    ledger = Ledger(path)
    ledger.append(started("r"))
    ledger.append({"event": "failed", "run_id": "r", "reason": "loss/pea is nan at step 7"})
    assert ledger.outcomes()["r"].status == "failed"
    assert ledger.outcomes()["r"].reason == "loss/pea is nan at step 7"
    assert ledger.finished("r") is None

    ledger.append(started("r"))
    assert ledger.outcomes()["r"].status == "running"
    ledger.append(
        {
            "event": "finished",
            "run_id": "r",
            "last": {"val/miou": 40.5},
            "best": {"epoch": 3, "val/miou": 41.0},
            "complexity": {"params_m": 3.72},
            "seconds": 12.5,
        }
    )
    ledger.append({"event": "reused", "run_id": "r", "study": "other", "arm": "b", "seed": 0})

    run = ledger.finished("r")
    assert (run.key, run.attempts, run.reason, run.seconds) == ("k-r", 2, "", 12.5)
    assert (run.last, run.best["epoch"], run.complexity) == ({"val/miou": 40.5}, 3, {"params_m": 3.72})
    assert run.members == [Membership("s", "a", 0), Membership("other", "b", 0)]
    assert Ledger(path).outcomes() == ledger.outcomes()


def test_a_stopped_trial_is_not_finished(path):
    ledger = Ledger(path)
    ledger.append(started("r", role="trial"))
    ledger.append({"event": "stopped", "run_id": "r", "last": {"val/miou": 1.0}})
    assert ledger.outcomes()["r"].status == "stopped"
    assert ledger.finished("r") is None


def test_numbers_that_are_no_json_are_kept_as_null(path):
    ledger = Ledger(path)
    ledger.append({"event": "finished", "run_id": "r", "last": {"loss": math.nan, "lr": math.inf, "epoch": 2}})
    json.loads(path.read_text(), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    last = ledger.outcomes()["r"].last
    assert math.isnan(last["loss"])
    assert math.isnan(last["lr"])
    assert last["epoch"] == 2


def test_an_error_that_names_a_file_whose_name_is_no_text_is_written(path):
    name = os.fsdecode(b"/data/\xff.png")
    Ledger(path).append({"event": "failed", "run_id": "a", "reason": f"no such file: {name}"})
    assert Ledger(path).outcomes()["a"].reason == "no such file: /data/?.png"


def test_epochs_are_in_order_and_each_once(path):
    ledger = Ledger(path)
    ledger.append(started("r"))
    for number, value in ((1, 0.5), (3, 0.3), (2, 0.4), (2, 0.4), (1, 0.5)):
        ledger.append({"event": "epoch", "run_id": "r", "metrics": {"epoch": float(number), "loss": value}})
    ledger.append({"event": "epoch", "run_id": "r", "metrics": {"epoch": 4.0, "loss": math.nan}})
    run = Ledger(path).outcomes()["r"]
    assert [epoch["epoch"] for epoch in run.epochs] == [1, 2, 3, 4]
    assert [epoch["loss"] for epoch in run.epochs[:3]] == [0.5, 0.4, 0.3] and math.isnan(run.epochs[3]["loss"])
    assert run.status == "running"

    before = path.read_bytes()
    ledger.append_epochs("r", run.epochs)
    assert path.read_bytes() == before
    ledger.append_epochs("r", [*run.epochs, {"epoch": 5.0}])
    ledger.append_epochs("new", [{"epoch": 1.0}])
    assert len(ledger.outcomes()["r"].epochs) == 5 and len(ledger.outcomes()["new"].epochs) == 1
    assert [event["event"] for event in ledger.events()] == ["started"], "epochs stand in the runs"


def test_a_run_knows_what_computed_it_and_why_it_failed(path):
    ledger = Ledger(path)
    for commit in ("first", "second"):
        ledger.append({"event": "study", "study": "s", "text": "", "environment": {"git": {"commit": commit}}})
        ledger.append(started(commit))
    ledger.append({"event": "note", "run_id": "first", "text": "began again"})
    ledger.append({"event": "failed", "run_id": "first", "cause": "nan", "reason": "loss/ce is not finite at step 3"})
    ledger.append({"event": "finished", "run_id": "second", "last": {}, "environment": {"device": "cpu"}})
    runs = ledger.outcomes()
    assert list(runs) == ["first", "second"]
    assert runs["second"].environment == {"git": {"commit": "second"}, "device": "cpu"}
    assert runs["first"].environment == {"git": {"commit": "first"}}
    assert (runs["first"].cause, runs["first"].notes, runs["second"].cause) == ("nan", ["began again"], "")
    ledger.append(started("first"))
    assert (runs["first"].status, runs["first"].cause) == ("failed", "nan"), "not read yet"
    again = ledger.outcomes()["first"]
    assert (again.cause, again.reason, again.environment) == ("", "", {"git": {"commit": "second"}})


def test_what_another_process_writes_is_read_once_and_only_once(path):
    ledger = Ledger(path)
    for number in range(3):
        ledger.append(started("r"))
        assert Ledger(path).outcomes()["r"].attempts == number + 1
    with path.open("a") as file:  # another process, in the middle of a line
        file.write('{"event": "started", "time": "2026-01-01", ')
        file.flush()
        assert ledger.outcomes()["r"].attempts == 3
        file.write('"run_id": "r"}\n')
    assert ledger.outcomes()["r"].attempts == 4


def test_a_ledger_that_was_replaced_or_mended_is_read_anew(path):
    ledger = Ledger(path)
    for name in "abc":
        ledger.append(started(name))
    assert list(ledger.outcomes()) == ["a", "b", "c"]
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2]))
    assert list(ledger.outcomes()) == ["a", "b"]
    path.write_text("".join(line.replace('"run_id": "a"', '"run_id": "another"') for line in lines))
    assert list(ledger.outcomes()) == ["another", "b", "c"]
    path.unlink()
    assert ledger.outcomes() == {}


@pytest.mark.slow
def test_a_thousand_runs_of_fifty_epochs_are_read_in_seconds_and_then_for_nothing(path):
    path.parent.mkdir()
    metrics = {f"val/iou/class {i}": 50.123456 + i for i in range(18)}
    with path.open("w") as file:
        for run in range(1000):
            for epoch in range(1, 51):
                own = {"epoch": float(epoch), "loss": 1 / epoch, **metrics}
                file.write(
                    json.dumps({"event": "epoch", "time": "2026-01-01", "run_id": f"r{run}", "metrics": own}) + "\n"
                )
    begin = time.process_time()
    runs = Ledger(path).outcomes()
    assert time.process_time() - begin < 4
    assert len(runs) == 1000 and all(len(run.epochs) == 50 for run in runs.values())
    begin = time.process_time()
    for _ in range(1000):
        Ledger(path).outcomes()
    assert time.process_time() - begin < 1


@pytest.mark.slow
def test_reading_costs_little_more_than_parsing(path):
    path.parent.mkdir()
    last = {f"val/iou/class {i}": 50.0 + i for i in range(20)}
    lines = (
        json.dumps({**started(f"r{n}"), "event": "finished", "time": "2026-01-01", "last": last}) for n in range(10_000)
    )
    path.write_text("\n".join(lines) + "\n")
    parsed = time.process_time()
    for line in path.read_text().splitlines():
        json.loads(line)
    begin = time.process_time()
    assert len(Ledger(path).outcomes()) == 10_000
    assert time.process_time() - begin < 25 * (begin - parsed)
