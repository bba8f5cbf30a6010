"""What a kill leaves of the ledger's last line is repaired; any other damage is refused with its line."""

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
from orchestrator.store.repair import repair
from tests.orchestrator.store.run_events import started
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
