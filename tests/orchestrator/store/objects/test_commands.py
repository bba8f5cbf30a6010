"""Commands on a store at an address: they name the address, refuse what it cannot have, and check the bucket."""

import grp
import os
import re
import time

import pytest

from orchestrator.health import address_works
from orchestrator.running.machines.shared_store import check_shared
from orchestrator.store.folder import Store
from orchestrator.store.leases import Leases
from orchestrator.store.objects.working_copy import opened
from orchestrator.verbs.doctor import doctor
from trainer.config import UserError


@pytest.fixture
def store(address, tmp_path, monkeypatch):
    """The working copy of a new store, which commands use too."""
    monkeypatch.setenv("TRANSKD_CACHE", str(tmp_path / "cache"))
    return Store(opened(address))


@pytest.fixture
def here(driver, address):
    """here(*words) -> `transkd WORDS --store ADDRESS`, in this process."""
    return lambda *words: driver.here(*words, "--store", address)


@pytest.mark.slow
def test_messages_name_the_address(store, here, address):
    for words in (("status",), ("ui",), ("bundle", "demo_search")):
        done = here(*words)
        assert address in done.out + done.err, words
        assert str(store.root) not in done.out + done.err, words
    with Leases(store.root).study("demo_search"), pytest.raises(UserError) as refused:
        store.leases.study("demo_search").__enter__()
    assert f"run by pid {os.getpid()}" in str(refused.value) and f"in store {address};" in str(refused.value)


@pytest.mark.slow
def test_a_group_cannot_share_an_address_and_nothing_is_written(store, here, tmp_path):
    (tmp_path / "mine.yaml").write_text(f"group: {grp.getgrgid(os.getegid()).gr_name}\n")
    done = here("run", "demo_search", "--cluster", tmp_path / "mine.yaml")
    assert done.code == 2
    assert f"group: is for a store in a folder but the store is {store.name}; remove it" in done.err
    assert store.shared.objects.list("") == []


def test_a_machine_that_cannot_use_the_address_is_named_with_it(store, monkeypatch):
    monkeypatch.setattr("orchestrator.running.machines.shared_store.ask_each", lambda *asked: ({}, {}))
    with pytest.raises(UserError) as refused:
        check_shared(store, [{"NodeID": "ab", "NodeManagerAddress": "10.9.8.7"}])
    assert str(refused.value) == (
        f"all machines must read and write store {store.name}, but 10.9.8.7 of 1 do not; "
        "give them its credentials, or the role"
    )


def test_an_address_that_works_and_whose_clock_differs(store, monkeypatch):
    line = address_works(store.shared)
    assert (line.state, line.found.partition(" ")[0]) == ("ok", store.name), line
    assert store.shared.objects.list("") == [], "nothing is left behind"
    now = time.time
    monkeypatch.setattr("orchestrator.health.time.time", lambda: now() + 60)
    line = address_works(store.shared)
    assert (line.state, line.remedy) == ("warning", "set the clock by NTP")
    assert re.search(r"differs by (59|60|61) s$", line.found)


def test_an_address_without_conditional_writes_is_for_one_driver(store):
    store.shared.objects.creates_once = False
    line = address_works(store.shared)
    assert line.state == "warning" and "one driver at a time" in line.found


@pytest.mark.slow
@pytest.mark.parametrize("words", [("status",), ("plan", "demo_search"), ("report", "demo_search")])
def test_a_bucket_that_is_not_there_is_not_read_as_an_empty_store(s3, driver, tmp_path, monkeypatch, words):
    monkeypatch.setenv("TRANSKD_CACHE", str(tmp_path / "cache"))
    done = driver.here(*words, "--store", "s3://no-such-bucket/x")
    assert done.code == 2
    assert "store s3://no-such-bucket/x: there is no bucket no-such-bucket; correct the address" in done.err


@pytest.mark.slow
def test_where_no_store_is_nothing_is_copied(here, driver, address, tmp_path):
    for place in (address, tmp_path, tmp_path / "absent"):
        done = driver.here("store", "copy", place, tmp_path / "copy")
        assert done.code == 2 and f"no store is at {place}; correct the folder or address" in done.err
    assert not (tmp_path / "copy").exists()


@pytest.mark.slow
def test_doctor_tells_of_a_bucket_that_is_not_there_in_its_table(s3, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TRANSKD_CACHE", str(tmp_path / "cache"))
    with pytest.raises(SystemExit, match="1"):
        doctor(store="s3://no-such-bucket/x", step=False)
    out = capsys.readouterr().out
    assert re.search(
        r"^store +problem +store s3://no-such-bucket/x: there is no bucket no-such-bucket +correct", out, re.MULTILINE
    ), out
    assert re.search(r"^disk of the working copy +\w+ ", out, re.MULTILINE)
    assert "not-to-be-shown" not in out
