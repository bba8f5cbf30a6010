"""Leases and claims over objects: one driver a study, one process a run, and what a killed driver held is free."""

import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.store.journal import Writer
from orchestrator.store.objects import leases as lease_file
from orchestrator.store.objects import working_copy as copy_file
from orchestrator.store.objects.address import connect
from orchestrator.store.objects.leases import LostLeaseError, ObjectLeases
from orchestrator.store.objects.working_copy import WorkingCopy
from trainer.config import UserError

DRIVER = """
import sys
from pathlib import Path
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger
from orchestrator.store.objects.working_copy import opened
root, address, study = sys.argv[1:]
store = Store(opened(address, Path(root)))
ledger = Ledger(store.ledger, study)
with store.leases.study(study):
    print("drives", flush=True)
    sys.stdin.readline()
    for run_id in map("run{}".format, range(6)):
        claim = store.leases.claim(run_id, study)
        if claim is None:
            continue
        if ledger.run(run_id) is None:
            ledger.append({"event": "started", "run_id": run_id, "study": study})
            ledger.append({"event": "finished", "run_id": run_id, "last": {"epoch": 1.0}})
        claim.give_back()
    print("done", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    monkeypatch.setattr(lease_file, "LOOK_S", 0.05)


@pytest.fixture
def leases(address):
    """A function that makes the leases of another machine."""

    def make(machine="here"):
        return ObjectLeases(connect(address))

    return make


def elsewhere(monkeypatch, expiry_s=2.0):
    """Holders are processes of other machines, and their leases expire after so many seconds."""
    monkeypatch.setattr(lease_file, "_has_ended", lambda about: False)
    monkeypatch.setattr(lease_file, "EXPIRY_S", expiry_s)


@pytest.mark.slow
def test_a_study_has_one_driver_and_the_store_many(leases, monkeypatch, capsys):
    monkeypatch.setattr(lease_file, "EXPIRY_S", 1000.0)
    with leases().study("a") as held, leases().study("b"):
        assert leases().drivers().keys() == {"a", "b"}
        with ThreadPoolExecutor(1) as other:
            asked = other.submit(lambda: leases().study("a").__enter__())
            time.sleep(0.3)  # it waits, as the driver may have been killed
            while not asked.done():
                held.renew()
                time.sleep(0.5)  # S3 tells whole seconds
            with pytest.raises(UserError, match=rf"study a is run by pid {os.getpid()} on .* since 20.*; wait for it"):
                asked.result()
        said = r"^study a: pid \d+ on .* may have been killed, or hang; going on in (9\d\d|100\d) s unless it answers$"
        assert re.search(said, capsys.readouterr().err, re.MULTILINE)
        with pytest.raises(UserError, match=r"is in use by pid .* \(a\), pid .* \(b\)"), leases().whole():
            pytest.fail("drivers run")
    with leases().whole(), pytest.raises(UserError, match="is in use by pid"), leases().study("a"):
        pytest.fail("the store is held alone")
    with leases().study("a"):
        pass
    assert leases().drivers() == {}


@pytest.mark.slow
def test_a_lease_that_is_not_renewed_is_taken_and_its_holder_finds_out(leases, monkeypatch):
    elsewhere(monkeypatch)
    first = leases()
    with first.study("a") as lost:
        assert first.claim("run", "a") is not None
        with leases().study("b"):
            other = leases()
            with other.study("a") as taken:
                assert taken.key > lost.key
                with pytest.raises(LostLeaseError):
                    lost.renew()
                assert other.claim("run", "a") is not None, "a dead driver's claim is free"
                taken.renew()


def test_a_run_has_one_trainer_at_a_time(leases):
    one, two = leases(), leases()
    with one.study("a"), two.study("b"):
        claim = one.claim("run", "a")
        assert two.claim("run", "b") is None and two.claim("other", "b") is not None
        assert two.claimant("run").startswith(f"study a, pid {os.getpid()} on ")
        claim.give_back()
        time.sleep(lease_file.LOOK_S)
        assert two.claim("run", "b") is not None


@pytest.mark.slow
def test_of_many_that_claim_what_a_dead_driver_left_one_gets_it(leases, monkeypatch):
    dead = leases()
    with dead.study("dead"):
        assert dead.claim("run", "dead") is not None
    drivers = [leases() for _ in range(4)]
    held = [driver.study(f"s{n}") for n, driver in enumerate(drivers)]
    for each in held:
        each.__enter__()
    with ThreadPoolExecutor(4) as threads:
        claims = list(threads.map(lambda driver: driver.claim("run", "x"), drivers))
    assert sum(claim is not None for claim in claims) == 1
    next(filter(None, claims)).give_back()
    time.sleep(lease_file.LOOK_S)
    assert drivers[0].claim("run", "x") is not None
    for each in held:
        each.__exit__(None, None, None)


@pytest.mark.slow
def test_without_conditional_writes_there_is_one_driver(leases, monkeypatch):
    elsewhere(monkeypatch, expiry_s=1000.0)
    made = [leases() for _ in range(3)]
    for each in made:
        each.objects.creates_once = False
    one, two, three = made
    with one.study("a") as lost:
        assert one.claim("run", "a") is not None
        with pytest.raises(UserError, match=r"no conditional writes, so that one driver at a time .* in use by pid"):
            two.study("b").__enter__()
        lost.renew()
        assert one.drivers().keys() == {"a"}
        elsewhere(monkeypatch, expiry_s=-2.0)  # at once: S3 tells whole seconds
        with three.study("b"), pytest.raises(LostLeaseError):
            lost.renew()


def test_a_holder_that_was_killed_has_ended_also_where_nobody_collects_it():
    with subprocess.Popen(["sleep", "60"]) as holder:
        about = {"machine": lease_file._machine(), "pid": holder.pid}
        assert not lease_file._has_ended(about)
        holder.kill()
        while Path(f"/proc/{holder.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
        assert lease_file._has_ended(about)
    assert lease_file._has_ended(about), "and once it is collected"


def test_what_a_lease_says_is_read_whatever_it_is(leases):
    objects = leases().objects
    for name, text in (("a", b"[]"), ("b", b"[" * 100_000), ("c", b'{"pid": 1}')):
        objects.write(f"leases/{name}/000001", text)
    assert set(leases().drivers().values()) == {"another driver that is just starting"}


def start(root, address, study, env):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    env = {**os.environ, **env, "PYTHONPATH": str(Path(__file__).parents[4])}
    return subprocess.Popen([sys.executable, "-c", DRIVER, str(root), address, study], env=env, **pipes)


def go(process):
    process.stdin.write("go\n")
    process.stdin.flush()


@pytest.mark.slow
@pytest.mark.parametrize("is_one_machine", [False, True])
def test_two_drivers_and_a_killed_one_end_each_run_once(s3, tmp_path, is_one_machine):
    address = s3.address()
    roots = [tmp_path / ("one" if is_one_machine else study) for study in "abc"]
    processes = [start(root, address, study, s3.env) for root, study in zip(roots, "abc", strict=True)]
    assert [process.stdout.readline() for process in processes] == ["drives\n"] * 3
    for process in processes:
        go(process)
    processes[2].kill()  # wherever it is
    for process in processes[:2]:
        assert process.stdout.readline() == "done\n"
        go(process)
    assert [process.wait() for process in processes][:2] == [0, 0]
    again = start(roots[2], address, "c", s3.env)
    for line in ("drives\n", "done\n"):
        assert again.stdout.readline() == line
        go(again)
    assert again.wait() == 0
    copy = WorkingCopy(tmp_path / "reader", address)
    copy.refresh()
    from orchestrator.store.ledger import Ledger

    ends = [event["run_id"] for event in Ledger(copy.root / "ledger.jsonl").events() if event["event"] == "finished"]
    assert sorted(ends) == [f"run{n}" for n in range(6)]


def test_a_driver_that_lost_its_lease_is_interrupted_and_sends_nothing(s3, tmp_path, monkeypatch):
    elsewhere(monkeypatch)
    monkeypatch.setattr(copy_file, "SEND_S", 0.1)
    monkeypatch.setattr(copy_file, "BEAT_S", 0.1)
    copy = WorkingCopy(tmp_path / "copy", s3.address())

    def drive():
        with copy.study("a"):
            assert copy.objects.create("leases/a/000002", json.dumps({"study": "a"}).encode())
            Writer(copy.segments.path("a")).append({"event": "note", "run_id": "r", "text": "late"})
            for _ in range(600):
                time.sleep(0.1)
            pytest.fail("it goes on")

    with pytest.raises(UserError, match=r"study a was taken over by another driver in store s3://"):
        drive()
    assert copy.objects.list("journals") == []


@pytest.mark.slow
def test_a_study_of_1000_runs_needs_few_requests_a_run(s3, tmp_path):
    copy, runs = WorkingCopy(tmp_path / "copy", s3.address()), 40
    with copy.study("a"):
        before = s3.requests()
        for n in range(runs):
            claim = copy.claim(f"run{n}", "a")
            Writer(copy.segments.path("a")).append({"event": "started", "run_id": f"run{n}"})
            copy.fetch_run(f"run{n}")
            folder = copy.root / "runs" / f"run{n}"
            folder.mkdir(parents=True)
            for name, size in (("last.pt", 300_000), ("best.pt", 300_001), ("result.json", 10)):
                (folder / name).write_bytes(b"x" * size)
            claim.give_back()
        each = (s3.requests() - before) / runs
    assert each <= 10, each
    assert len(copy.objects.list("journals")) <= runs, "a listing of 1,000 runs is one request"
