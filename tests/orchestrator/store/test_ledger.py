"""The ledger loses no acknowledged event, whatever kills its writer, and says where it was damaged."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.store.full_disk import StoreFull
from orchestrator.store.journal import Reader
from orchestrator.store.ledger import Ledger
from orchestrator.store.ledger_run import Membership
from orchestrator.store.repair import repair
from trainer.config import UserError

WRITER = """
import sys
from pathlib import Path
from orchestrator.store.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
for number in range(1_000_000):
    ledger.append({"event": "started", "run_id": f"r{number}", "padding": "x" * 3000})
    print(number, flush=True)
"""


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    """For the processes that tests start, whatever folder they start in."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]), prepend=os.pathsep)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new folder" / "ledger.jsonl"


def started(run_id, **more):
    return {"event": "started", "run_id": run_id, "key": f"k-{run_id}", "study": "s", "arm": "a", "seed": 0, **more}


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


@pytest.mark.parametrize("cut", [1, 10, 40, -1])
def test_a_line_cut_off_is_skipped_and_kept(path, cut):
    """`cut` -1 loses only the newline: the event is whole, and counts."""
    ledger = Ledger(path)
    ledger.append(started("first"))
    whole = path.read_bytes()
    ledger.append(started("ünfinished"))
    torn = path.read_bytes()[len(whole) :][:cut]
    path.write_bytes(whole + torn)
    expected = ["first"] if cut > 0 else ["first", "ünfinished"]
    assert list(Ledger(path).outcomes()) == expected

    Ledger(path).append(started("next"))
    Ledger(path).append(started("after"))
    assert list(Ledger(path).outcomes()) == [*expected, "next", "after"]
    assert torn in path.read_bytes()


@pytest.mark.parametrize(
    "repair", [b"", b"\n", b"\n\n", b'\n{"event": "to', b'\n{"event": "torn"}', b'\n{"event": "torn"}\n']
)
def test_a_repair_that_is_cut_off_is_repaired(path, repair):
    path.parent.mkdir()
    path.write_bytes(b'{"event": "star' + repair)
    Ledger(path).append(started("next"))
    assert list(Ledger(path).outcomes()) == ["next"]


def test_a_long_line_cut_off_is_found(path):
    ledger = Ledger(path)
    ledger.append(started("first"))
    with path.open("a") as file:
        file.write('{"event": "trial", "padding": "' + "x" * 50_000)
    Ledger(path).append(started("next"))
    assert list(Ledger(path).outcomes()) == ["first", "next"]


def test_damage_in_the_middle_is_refused_with_its_line(path):
    ledger = Ledger(path)
    for name in "abc":
        ledger.append(started(name))
    lines = path.read_text().splitlines()
    lines[1] = lines[1][:20]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"ledger\.jsonl:2 must be a JSON event"):
        Ledger(path).outcomes()


@pytest.mark.parametrize("line", ["{}", "[]", '"event"', '{"run_id": "a"}', "null", "\0"])
def test_json_that_is_no_event_is_damage(path, line):
    path.parent.mkdir()
    path.write_text(f'{{"event": "study"}}\n{line}\n{{"event": "study"}}\n')
    with pytest.raises(UserError, match=r"ledger\.jsonl:2 must be a JSON event"):
        list(Reader(path).read())


EVENT = '{"event": "started", "time": "2026-01-01", "run_id": "a"}'
EPOCH = '{"event": "epoch", "time": "2026-01-01", "run_id": "a", "metrics": {"epoch": 1.0, "loss": 0.5}}'
NESTED = "[" * 100_000 + "]" * 100_000
STRANGE = {
    "braces": b"{{{",
    "brackets": b"[" * 100_000,
    "deep": b'{"event": "note", "text": ' + NESTED.encode() + b"}",
    "deep epoch": b'{"event": "epoch", "time": "2026-01-01", "run_id": "a", "metrics": ' + NESTED.encode() + b"}",
    "not UTF-8": b'{"event": "note", "run_id": "a", "text": "\xff\xfe"}',
    "UTF-16": EVENT.encode("utf-16"),
    "epoch of a run that is no text": EPOCH.replace('"a"', '"\xff"').encode("latin-1"),
    "a flipped byte": EVENT.replace(":", ";", 1).encode(),
    "a flipped byte at the end": EVENT.replace("}", "]").encode(),
    "another": EVENT.replace("}", "m").encode(),
    "no event": b'{"run_id": "a"}',
    "text": b"hello",
    "a number of 5,000 digits": b'{"event": "note", "run_id": "a", "text": ' + b"9" * 5000 + b"}",
}
LACKING = {
    '{"event": "started", "time": "2026-01-01"}': "`started` lacks run_id",
    '{"event": "finished", "run_id": "a"}': "`finished` lacks time",
    '{"event": "epoch", "time": "2026-01-01", "run_id": "a"}': "`epoch` lacks metrics",
    '{"event": "epoch", "time": "2026-01-01", "run_id": "a", "metrics": {"loss": 1}}': "`epoch` lacks metrics.epoch",
    '{"event": "epoch", "time": "2026-01-01", "run_id": "a", "metrics": 3}': "metrics: Input should be",
    '{"event": "note", "run_id": "a"}': "`note` lacks text",
    '{"event": "again", "number": 1}': "`again` lacks search",
    '{"event": "started", "time": 3, "run_id": "a"}': "time: Input should be a valid string",
    '{"event": "started", "time": "2026-01-01", "run_id": ["a"]}': "run_id: Input should be a valid string",
    '{"event": "started", "time": "2026-01-01", "run_id": "a", "seed": "one"}': "seed: Input should be a valid integer",
    '{"event": "finished", "time": "2026-01-01", "run_id": "a", "last": {"val/miou": "x"}}': "last.val/miou: Input",
    '{"event": "finished", "time": "2026-01-01", "run_id": "a", "last": [1]}': "last: Input should be",
    '{"event": "study", "environment": "x"}': "environment: Input should be a valid dictionary",
    '{"event": "finished", "time": "2026-01-01", "run_id": "a"}': "`finished` lacks last",
    '{"event": "finished", "time": "2026-01-01", "run_id": "a", "last": {"epoch": NaN}}': "last: epoch must be",
    '{"event": "stopped", "time": "2026-01-01", "run_id": "a", "last": {"epoch": 1e99}}': "last: epoch must be",
    '{"event": "stopped", "time": "2026-01-01", "run_id": "a", "best": {"step": -1}}': "best: step must be a whole",
    '{"event": "stopped", "time": "2026-01-01", "run_id": "a", "seconds": NaN}': "seconds: Input should be",
    '{"event": "started", "time": "yesterday", "run_id": "a"}': "time: Invalid isoformat string",
    '{"event": "study", "time": "2026-13-01"}': "time: month must be in 1..12",
    **{
        EPOCH.replace('"epoch": 1.0', f'"epoch": {epoch}'): "metrics: epoch must be a whole number of 0 or more but is"
        for epoch in ("NaN", "null", "1.5", "-1", "Infinity", "1e99")
    },
    EPOCH.replace('"loss"', '"step": 0.5, "loss"'): "metrics: step must be a whole number",
    '{"event": 3}': "event: Input should be a valid string",
}


def read_whole(path):
    return [list(run.epochs) for run in Ledger(path).outcomes().values()]


@pytest.mark.parametrize("line", STRANGE.values(), ids=STRANGE)
@pytest.mark.parametrize("place", ["alone", "first", "last", "last three"])
def test_a_line_that_no_kill_leaves_is_damage_wherever_it_stands(path, line, place):
    path.parent.mkdir()
    lines = {"alone": [line], "first": [line, EVENT], "last": [EVENT, line], "last three": [EVENT, line, line, line]}
    texts = [text if isinstance(text, bytes) else text.encode() for text in lines[place]]
    path.write_bytes(b"\n".join(texts) + b"\n")
    number = texts.index(line) + 1
    with pytest.raises(UserError, match=rf"ledger\.jsonl:{number} must be a JSON event but is damaged.*transkd repair"):
        read_whole(path)
    before = path.read_bytes()
    repaired = repair(path)
    assert repaired.left_out == [n for n, text in enumerate(texts, 1) if text == line]
    assert repaired.copy.read_bytes() == before and repaired.copy.parent == path.parent
    assert list(Ledger(path).outcomes()) == ["a"] * texts.count(EVENT.encode())
    assert repair(path).copy is None, "it is whole"


@pytest.mark.parametrize(("line", "why"), LACKING.items(), ids=LACKING.values())
def test_an_event_without_its_fields_is_named(path, line, why):
    path.parent.mkdir()
    path.write_text(f"{EVENT}\n{EPOCH}\n{line}\n{EVENT}\n")
    with pytest.raises(UserError, match=r"ledger\.jsonl:3 must be a JSON event but is damaged \(" + re.escape(why)):
        read_whole(path)
    assert repair(path).left_out == [3]
    assert read_whole(path) == [[{"epoch": 1.0, "loss": 0.5}]]


@pytest.mark.parametrize("line", [EVENT, EPOCH, '{"event": "note", "run_id": "ü\\ud83d\\ude00", "text": "-1.5e3 ü"}'])
def test_what_a_kill_leaves_of_a_line_is_no_damage(path, line):
    path.parent.mkdir()
    for cut in range(1, len(line.encode())):
        for end in (b"", b"\n"):  # a repair that was cut off has closed the line
            path.write_bytes(EVENT.encode() + b"\n" + line.encode()[:cut] + end)
            assert list(Ledger(path).outcomes()) == ["a"], cut


def test_what_says_that_a_line_was_torn_is_no_event_of_its_own(path):
    path.parent.mkdir()
    path.write_text('{"event": "torn"}\n')
    assert list(Reader(path).read()) == []
    path.write_text('{"event": "torn"}\n{"event": "study"}\n')
    assert list(Reader(path).read()) == [{"event": "study"}]


def test_damage_has_the_same_line_number_for_a_reader_that_saw_a_line_before_its_newline(path):
    path.parent.mkdir()
    reader, ledger = Reader(path), Ledger(path)
    path.write_bytes(b'{"event": "study"}')
    assert len(list(reader.read())) == 1
    ledger.append(started("a"))
    with path.open("ab") as file:
        file.write(b'damaged\n{"event": "study"}\n')
    for one in (reader, Reader(path)):
        with pytest.raises(UserError, match=r"ledger\.jsonl:3 must be a JSON event"):
            list(one.read())


def test_an_error_that_names_a_file_whose_name_is_no_text_is_written(path):
    name = os.fsdecode(b"/data/\xff.png")
    Ledger(path).append({"event": "failed", "run_id": "a", "reason": f"no such file: {name}"})
    assert Ledger(path).outcomes()["a"].reason == "no such file: /data/?.png"


def test_empty_lines_do_no_harm(path):
    Ledger(path).append(started("a"))
    path.write_text("\n" + path.read_text() + "\n\n")
    Ledger(path).append(started("b"))
    assert list(Ledger(path).outcomes()) == ["a", "b"]


def test_a_full_disk_is_an_error_and_the_next_append_repairs(path, monkeypatch):
    ledger = Ledger(path)
    ledger.append(started("a"))
    real = os.write

    def full(handle, data):
        monkeypatch.setattr(os, "write", real)
        real(handle, data[:7])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StoreFull, match="No space"):
        ledger.append(started("lost"))
    ledger.append(started("b"))
    assert list(Ledger(path).outcomes()) == ["a", "b"]


@pytest.mark.slow
def test_a_killed_writer_loses_nothing_it_was_told_is_written(path):
    for round_number in range(3):
        before = len(list(Ledger(path).events()))
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
            writer.stdout.readline()
            time.sleep(0.05 * (round_number + 1))
            writer.send_signal(signal.SIGKILL)
            acknowledged = 1 + sum(line.endswith("\n") for line in writer.stdout)
        written = len(list(Ledger(path).events())) - before
        assert written - acknowledged in (0, 1)
    Ledger(path).append(started("last"))
    assert Ledger(path).outcomes()["last"].status == "running"


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
