"""Many studies share a store: each has one driver, each run one that trains it, and a kill leaves nothing locked."""

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

from orchestrator.store import leases as lease_file
from orchestrator.store.folder import Store
from orchestrator.store.leases import STARTING, Leases
from trainer.config import UserError

HOLDER = """
import sys, time
from pathlib import Path
from orchestrator.store.leases import Leases
leases = Leases(Path(sys.argv[1]))
with leases.study("tiny"):
    claim = leases.claim("run", "tiny")
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
    with store.leases.study("tiny"):
        print("held", flush=True)
        sys.stdin.readline()
except UserError as error:
    print(error, flush=True)
"""

CLAIMANT = """
import sys
from pathlib import Path
from orchestrator.store.leases import Leases
leases = Leases(Path(sys.argv[1]))
print("there", flush=True)
sys.stdin.readline()
held = 0
for _ in range(300):
    if (claim := leases.claim("run", "tiny")) is not None:
        with (leases.root / "inside").open("x"):
            pass
        (leases.root / "inside").unlink()
        claim.give_back()
        held += 1
print(held, flush=True)
"""


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    """For the processes that tests start, whatever folder they start in."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]), prepend=os.pathsep)


@pytest.fixture
def leases(tmp_path):
    return Leases(tmp_path / "store")


def test_a_study_has_one_driver_and_the_store_many(leases):
    refused = pytest.raises(UserError, match=rf"study a is run by pid {os.getpid()} on .* since 20.* in store")
    with leases.study("a"), leases.study("b"):
        with refused, Leases(leases.root).study("a"):
            pytest.fail("two drivers of one study")
        assert leases.drivers().keys() == {"a", "b"}
    with pytest.raises(RuntimeError, match="driver"), leases.study("a"):
        raise RuntimeError("the driver fails")
    with leases.study("a"):
        pass
    assert leases.drivers() == {}


@pytest.mark.slow
def test_who_needs_the_whole_store_waits_for_every_driver_and_the_other_way_round(leases):
    with leases.study("a"), leases.study("b"):
        named = rf"in use by pid {os.getpid()} on .* \(a\), pid {os.getpid()} on .* \(b\); wait for it"
        with pytest.raises(UserError, match=named), leases.whole():
            pytest.fail("a driver runs")
    with leases.whole():
        assert leases.drivers().keys() == {""}
        with pytest.raises(UserError, match=rf"is in use by pid {os.getpid()} on "), leases.study("a"):
            pytest.fail("the store is repaired")
    with leases.study("a"):
        pass


@pytest.mark.slow
def test_what_a_killed_driver_held_is_free(leases):
    command = [sys.executable, "-c", HOLDER, str(leases.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"pid {holder.pid} "), leases.study("tiny"):
            pytest.fail("two drivers of one study")
        assert leases.claim("run", "other") is None
        assert leases.claimant("run").startswith(f"study tiny, pid {holder.pid} on ")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with leases.study("tiny"):
            assert leases.claim("run", "other") is not None


def test_a_driver_is_who_holds_the_lock_whatever_process_has_its_pid_now(leases):
    assert leases.drivers() == {}
    with leases.study("a"):
        assert f"pid {os.getpid()} on " in leases.drivers()["a"]
    left = {"pid": os.getpid(), "host": socket.gethostname(), "since": "2026-01-01T00:00:00+00:00"}
    (leases.root / "lease").write_text(json.dumps(left))  # killed, and its pid is this living process's by now
    (leases.root / "leases" / "a").write_text(json.dumps(left))
    assert leases.drivers() == {}


@pytest.mark.parametrize("said", ["", "{}", '{"pid": 1, "ho', "[]", "[" * 100_000, "3", '{"pid": 1}'])
@pytest.mark.parametrize("name", ["lease", "leases/a"])
def test_a_driver_that_has_the_lock_and_has_not_said_who_it_is_is_just_starting(leases, name, said):
    path = leases.root / name
    path.parent.mkdir(parents=True)
    with path.open("w") as file:
        file.write(said)
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        assert list(leases.drivers().values()) == [STARTING]


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO])
def test_where_locks_are_not_supported_the_file_says_who_may_drive(leases, monkeypatch, code):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    with leases.study("a"):
        left = (leases.root / "leases" / "a").read_text()
    monkeypatch.setattr(fcntl, "flock", refuse)
    assert leases.drivers() == {}
    (leases.root / "leases" / "a").write_text(left)  # of a driver on a machine that has locks, or of a killed one
    said = leases.drivers()["a"]
    assert said.startswith(f"pid {os.getpid()} on ") and said.endswith(", unless it was killed")
    for action in (lambda: leases.study("a").__enter__(), lambda: leases.claim("run", "a")):
        with pytest.raises(UserError, match=rf"store {leases.root} must allow file locks"):
            action()


def test_who_asks_for_the_driver_does_not_keep_one_from_starting(leases, monkeypatch):
    monkeypatch.setattr(lease_file, "ASKING_S", 10.0)
    with leases.study("a"):
        pass
    with (leases.root / "leases" / "a").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        asker = threading.Timer(0.2, fcntl.flock, (file.fileno(), fcntl.LOCK_UN))
        asker.start()
        begin = time.monotonic()
        with leases.study("a"):
            asker.join()
        assert time.monotonic() - begin < lease_file.ASKING_S, (
            "the lock is tried again and again, not once more after a long time"
        )


@pytest.mark.slow
def test_of_eight_processes_one_gets_the_lease(tmp_path):
    command = [sys.executable, "-c", CONTENDER, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    contenders = [subprocess.Popen(command, **pipes) for _ in range(8)]
    try:
        assert len({p.stdout.readline() for p in contenders}) == 1, "and all see one identity"
        for process in contenders:
            process.stdin.write("go\n")
            process.stdin.flush()
        answers = [p.stdout.readline().strip() for p in contenders]
    finally:
        for process in contenders:
            process.communicate()
    assert answers.count("held") == 1
    winner = contenders[answers.index("held")].pid
    assert all(f"pid {winner} " in a or STARTING in a for a in answers if a != "held")
    assert {p.returncode for p in contenders} == {0}


@pytest.mark.slow
def test_of_many_that_claim_a_run_again_and_again_one_has_it_at_a_time(leases):
    command = [sys.executable, "-c", CLAIMANT, str(leases.root)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    leases.root.mkdir()
    claimants = [subprocess.Popen(command, **pipes) for _ in range(4)]
    assert all(p.stdout.readline() == "there\n" for p in claimants)
    for process in claimants:
        process.stdin.write("go\n")
        process.stdin.flush()
    counts = [process.communicate()[0].strip() for process in claimants]
    assert [process.returncode for process in claimants] == [0] * 4 and sum(map(int, counts)) > 0
    assert leases.claim("run", "next") is not None, "nothing stays locked"


def test_a_claim_is_given_back_and_names_its_claimant(leases):
    claim = leases.claim("run", "a")
    assert leases.claim("run", "b") is None
    assert leases.claim("other", "b") is not None
    assert leases.claimant("run").startswith(f"study a, pid {os.getpid()} on ")
    claim.give_back()
    assert leases.claim("run", "b") is not None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_of_a_store_that_cannot_be_written_the_drivers_are_read(leases):
    with leases.study("a"):
        leases.root.chmod(0o500)
        try:
            assert Store(leases.root).leases.drivers().keys() == {"a"}
        finally:
            leases.root.chmod(0o700)
