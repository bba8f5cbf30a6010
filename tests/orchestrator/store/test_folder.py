"""The store is one absolute folder, and one driver at a time holds its lease."""

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import make_url

from orchestrator.store.folder import Store, resolve, sqlite_uri
from orchestrator.store.ledger import Ledger
from orchestrator.store.run_folder import read_retries
from orchestrator.tracking.mlflow_server import open_database
from trainer.config import UserError
from trainer.files.atomic import whole_json
from trainer.files.run_folder import read_epochs, read_failure, read_notes, read_result

HOLDER = """
import sys, time
from pathlib import Path
from orchestrator.store.folder import Store
with Store(Path(sys.argv[1])).lease():
    print("held", flush=True)
    time.sleep(60)
"""

CONTENDER = """
import sys
from pathlib import Path
from orchestrator.store.folder import Store
from trainer.config import UserError
store = Store(Path(sys.argv[1]))
print(store.identity, flush=True)
sys.stdin.readline()
try:
    with store.lease():
        print("held", flush=True)
        sys.stdin.readline()
except UserError as error:
    print(error, flush=True)
"""


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.delenv("TRANSKD_STORE", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    # For the processes that tests start, whatever folder they start in.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]), prepend=os.pathsep)


def test_option_then_environment_then_spec_then_home(monkeypatch):
    assert resolve(None, None) == Path.home() / "transkd-store"
    assert resolve(None, "/spec") == Path("/spec")
    monkeypatch.setenv("TRANSKD_STORE", "/environment")
    assert resolve(None, "/spec") == Path("/environment")
    assert resolve("/option", "/spec") == Path("/option")
    assert resolve("~/mine") == Path.home() / "mine"


@pytest.mark.parametrize(
    ("option", "environment", "spec", "message"),
    [
        ("here", "", None, r"--store\) must be an absolute path but got here; write /.*/here"),
        (None, "./here", None, r"TRANSKD_STORE\) must be an absolute path"),
        (None, "", "here", r"cluster spec\) must be an absolute path"),
        ("s3://bucket/store", "", None, r"must be a folder but got s3://bucket/store; mount it"),
    ],
)
def test_what_is_not_an_absolute_folder_is_refused(monkeypatch, option, environment, spec, message):
    monkeypatch.setenv("TRANSKD_STORE", environment)
    with pytest.raises(UserError, match=message):
        resolve(option, spec)


def test_everything_lies_below_the_root(tmp_path, monkeypatch):
    store = Store(tmp_path)
    for path in (store.ledger, store.run_dir("r"), store.cache, store.ray_dir, store.artifacts):
        assert path.is_relative_to(tmp_path)
    assert store.mlflow_uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    assert store.mlflow_uri == "http://tracking:5000"


@pytest.mark.parametrize("name", ["a%20b", "what?x", "50%", "no#1", "a b", "größe", "%3F"])
def test_an_sqlite_address_leads_to_its_file(tmp_path, name):
    assert make_url(sqlite_uri(tmp_path / name / "mlflow.db")).database == str(tmp_path / name / "mlflow.db")


def test_identity_moves_with_the_folder(tmp_path):
    first = Store(tmp_path / "a").identity
    assert Store(tmp_path / "b").identity != first
    (tmp_path / "a").rename(tmp_path / "c")
    assert Store(tmp_path / "c").identity == first
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["identity"]


def test_the_lease_is_exclusive_and_given_back(tmp_path):
    store = Store(tmp_path / "store")
    refused = pytest.raises(UserError, match=rf"in use by pid {os.getpid()} on .* since 20")
    with store.lease(), refused, Store(store.root).lease():
        pytest.fail("two drivers hold one lease")
    with pytest.raises(RuntimeError, match="driver"), store.lease():
        raise RuntimeError("the driver fails")
    with store.lease():
        pass


@pytest.mark.slow
def test_the_lease_of_a_killed_driver_is_free(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"pid {holder.pid} "), Store(tmp_path).lease():
            pytest.fail("two drivers hold one lease")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with Store(tmp_path).lease():
            pass


def test_a_driver_is_who_holds_the_lock_whatever_process_has_its_pid_now(tmp_path):
    store = Store(tmp_path)
    assert store.driver() is None
    with store.lease():
        assert f"pid {os.getpid()} on " in store.driver()
    assert store.driver() is None
    left = {"pid": os.getpid(), "host": socket.gethostname(), "since": "2026-01-01T00:00:00+00:00"}
    (tmp_path / "lease").write_text(json.dumps(left))  # killed, and its pid is this living process's by now
    assert store.driver() is None


def test_a_driver_that_has_the_lock_and_has_not_said_who_it_is_is_just_starting(tmp_path):
    for said in ("", "{}", '{"pid": 1, "ho'):
        with (tmp_path / "lease").open("w") as file:
            file.write(said)
            file.flush()
            fcntl.flock(file, fcntl.LOCK_EX)
            assert Store(tmp_path).driver() == "another driver that is just starting"


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO])
def test_where_locks_are_not_supported_the_file_says_who_may_drive(tmp_path, monkeypatch, code):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    store = Store(tmp_path)
    with store.lease():
        left = (tmp_path / "lease").read_text()
    monkeypatch.setattr(fcntl, "flock", refuse)
    assert store.driver() is None
    (tmp_path / "lease").write_text(left)  # of a driver on a machine that has locks, or of a killed one
    assert store.driver().startswith(f"pid {os.getpid()} on ") and store.driver().endswith(", unless it was killed")
    with pytest.raises(UserError, match="must allow file locks"), store.lease():
        pass


def test_who_asks_for_the_driver_does_not_keep_one_from_starting(tmp_path):
    with (tmp_path / "lease").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        asker = threading.Timer(0.2, fcntl.flock, (file.fileno(), fcntl.LOCK_UN))
        asker.start()
        begin = time.monotonic()
        with Store(tmp_path).lease():
            asker.join()
        assert time.monotonic() - begin < 5, "the lock is tried again and again, not once more after a long time"


@pytest.mark.slow
def test_of_eight_processes_one_gets_the_lease(tmp_path):
    command = [sys.executable, "-c", CONTENDER, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    contenders = [subprocess.Popen(command, **pipes) for _ in range(8)]
    try:
        assert len({p.stdout.readline() for p in contenders}) == 1
        for process in contenders:
            process.stdin.write("go\n")
            process.stdin.flush()
        answers = [p.stdout.readline().strip() for p in contenders]
    finally:
        for process in contenders:
            process.communicate()
    assert answers.count("held") == 1
    winner = contenders[answers.index("held")].pid
    starting = "another driver that is just starting"
    assert all(f"pid {winner} " in a or starting in a for a in answers if a != "held")
    assert {p.returncode for p in contenders} == {0}


def put(kind, path):
    """Something that is no file, at the path of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    {"a pipe": os.mkfifo, "a folder": Path.mkdir, "a device": lambda there: there.symlink_to("/dev/zero")}[kind](path)


@pytest.mark.parametrize("kind", ["a pipe", "a folder", "a device"])
def test_what_is_no_file_is_refused_where_the_store_keeps_one(tmp_path, kind):
    store = Store(tmp_path / "store")
    for name in ("ledger.jsonl", "lease", "identity", "mlflow.db"):
        put(kind, store.root / name)
    ledger = Ledger(store.ledger)
    for action in (
        ledger.outcomes,
        lambda: ledger.append_epochs("run", []),
        store.driver,
        lambda: store.lease().__enter__(),
        lambda: store.identity,
        lambda: open_database(store.mlflow_uri, store.artifacts),
    ):
        with pytest.raises(UserError, match=f"must be a file but is {kind}; move it away"):
            action()


def test_a_ledger_that_becomes_a_pipe_is_refused_too(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append({"event": "study", "study": "s"})
    assert list(ledger.events())
    ledger.path.unlink()
    os.mkfifo(ledger.path)
    with pytest.raises(UserError, match="must be a file but is a pipe"):
        ledger.events()


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"", b"a" * 12 + b"'", b"0123456789a"])
def test_an_identity_that_is_none_is_refused(tmp_path, content):
    store = Store(tmp_path)
    before = store.identity
    (tmp_path / "identity").write_bytes(content)
    with pytest.raises(UserError, match="must hold 12 hex digits but holds"):
        _ = store.identity
    (tmp_path / "identity").write_text(f"{before}\n")
    assert store.identity == before


@pytest.mark.parametrize("text", ["[]", "[" * 100_000, "3", '{"pid": 1}'])
def test_a_lease_that_was_damaged_is_no_traceback(tmp_path, text):
    store = Store(tmp_path)
    with store.lease():
        (tmp_path / "lease").write_text(text)
        assert store.driver() == "another driver that is just starting"


@pytest.mark.parametrize("kind", ["a pipe", "a folder"])
def test_files_of_a_run_and_of_the_cache_that_are_none_count_as_absent(tmp_path, kind):
    for name in ("result.json", "failure.json", "epochs.jsonl", "notes.txt", "retries.jsonl", "structure.json"):
        put(kind, tmp_path / name)
    assert read_result(tmp_path) is read_failure(tmp_path) is whole_json(tmp_path / "structure.json") is None
    assert read_epochs(tmp_path) == read_notes(tmp_path) == read_retries(tmp_path) == []
    (tmp_path / "damaged.json").write_text('{"gmacs": ')
    assert whole_json(tmp_path / "damaged.json") is None
