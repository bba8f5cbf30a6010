"""Journals in a store at an address: sent as numbered segments of whole lines, and read into the files of others."""

import pytest

from orchestrator.store.journal import Writer
from orchestrator.store.ledger import Ledger
from orchestrator.store.objects.address import connect
from orchestrator.store.objects.leases import LostLeaseError
from orchestrator.store.objects.segments import FIRST, Segments
from trainer.config import UserError


@pytest.fixture
def machine(address, tmp_path):
    """A function that makes the segments of a machine's working copy."""
    return lambda name: Segments(tmp_path / name, connect(address))


def note(segments, text, study="a"):
    Writer(segments.path(study)).append({"event": "note", "run_id": "r", "text": text})


def texts(segments):
    return [event["text"] for event in Ledger(segments.root / "ledger.jsonl").events()]


def test_what_one_machine_writes_others_read(machine):
    here, there = machine("here"), machine("there")
    assert not here.send("a"), "nothing is sent where nothing is new"
    note(here, "1")
    assert here.send("a") and not here.send("a")
    there.fetch()
    note(here, "2")
    note(here, "3")
    here.send("a")
    there.fetch()
    assert texts(there) == ["1", "2", "3"]
    assert [info.name for info in here.objects.list("journals")] == ["journals/a/000001", "journals/a/000002"]
    assert there.path("a").read_bytes() == here.path("a").read_bytes()
    there.fetch()
    assert texts(there) == ["1", "2", "3"]


def test_a_line_that_is_being_written_is_not_sent(machine):
    here = machine("here")
    note(here, "1")
    with here.path("a").open("ab") as file:
        file.write(b'{"event": "no')
    here.send("a")
    note(here, "2")  # closes the line
    here.send("a")
    assert here.objects.read("journals/a/000001").endswith(b'"1"}\n')
    there = machine("there")
    there.fetch()
    assert texts(there) == ["1", "2"]


def test_a_fetch_that_was_killed_is_repeated(machine):
    here, there = machine("here"), machine("there")
    note(here, "1")
    here.send("a")
    there.fetch()
    with there.path("a").open("ab") as file:
        file.write(b'{"event": "note", "run_id"')  # half of the next segment
    note(here, "2")
    here.send("a")
    there.fetch()
    assert texts(there) == ["1", "2"]


def test_a_machine_goes_on_with_the_journal_of_another(machine):
    here, there = machine("here"), machine("there")
    note(here, "1")
    here.send("a")
    note(here, "never sent")
    there.adopt("a")
    note(there, "2")
    there.send("a")
    here.adopt("a")
    note(here, "3")
    here.send("a")
    assert texts(here) == ["1", "2", "3"]
    (aside,) = here.path("a").parent.glob("*.unsent-*")
    assert "never sent" in aside.read_text()


def test_a_machine_goes_on_with_what_it_could_not_send_or_record(machine, monkeypatch):
    here = machine("here")
    note(here, "1")
    monkeypatch.setattr(here, "_record", lambda name, sent: None)
    here.send("a")
    again = machine("here")  # killed between the segment and its record
    note(again, "2")
    again.adopt("a")
    again.send("a")
    there = machine("there")
    there.fetch()
    assert texts(there) == texts(again) == ["1", "2"]
    assert not list(again.path("a").parent.glob("*.unsent-*"))


def test_two_that_write_one_journal_are_found_out(machine):
    here, there = machine("here"), machine("there")
    note(here, "1")
    note(there, "other")
    here.send("a")
    with pytest.raises(LostLeaseError):
        there.send("a")


def test_a_journal_that_this_machine_writes_is_not_fetched(machine):
    here, there = machine("here"), machine("there")
    note(here, "1")
    here.send("a")
    there.fetch(driven_here={"a"})
    assert not there.path("a").exists()


def test_a_store_that_was_emptied_is_refused(machine):
    here = machine("here")
    note(here, "1")
    here.send("a")
    here.objects.delete("journals/a/000001")
    with pytest.raises(UserError, match="holds 0 segments of journal a, and this machine has read 1: it was emptied"):
        here.adopt("a")


def test_all_journals_of_a_folder_are_sent_once(machine, tmp_path):
    here = machine("here")
    note(here, "1")
    note(here, "old", FIRST)
    for _ in range(2):
        here.send_all()
    note(here, "2")
    here.send_all()
    there = machine("there")
    there.fetch()
    assert sorted(texts(there)) == ["1", "2", "old"]
    assert len(here.objects.list("journals")) == 3
    other = Segments(tmp_path / "other", here.objects)
    note(other, "another store's")
    with pytest.raises(UserError, match="holds another journal a"):
        other.send_all()
