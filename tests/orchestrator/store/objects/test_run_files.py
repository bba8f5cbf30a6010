"""Run folders in a store at an address: whole, checked, and never a mixture of two uploads."""

import json

import pytest

from orchestrator.running import trial
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger
from orchestrator.store.objects import run_files, uploads
from orchestrator.store.objects.address import connect
from orchestrator.store.objects.uploads import uploading
from orchestrator.store.objects.working_copy import opened, working_copy
from orchestrator.store.run_folder import end_of
from trainer.config import UserError
from trainer.files import run_folder
from trainer.files.failure import Failure

RUN = "0123456789ab"


class Folder:
    """A run's folder in a machine's working copy."""

    def __init__(self, root, address):
        self.root, self.path, self.objects = root, root / "runs" / RUN, connect(address)
        self.path.mkdir(parents=True)

    def save(self, epoch, size=300_000):
        (self.path / "last.pt").write_bytes(bytes([epoch]) * size)
        with (self.path / "epochs.jsonl").open("a") as file:
            file.write(f'{{"epoch": {epoch}}}\n')

    def upload(self):
        return run_files.upload(self.objects, self.root, RUN)

    def fetch(self, **options):
        return run_files.fetch(self.objects, self.root, RUN, **options)

    @property
    def files(self):
        return {path.name: path.read_bytes() for path in self.path.glob("[!.]*")}


@pytest.fixture
def machine(address, tmp_path):
    return lambda name: Folder(tmp_path / name, address)


def test_a_run_goes_on_where_another_machine_has_left_it(machine):
    here, there = machine("here"), machine("there")
    assert not here.upload() and not here.fetch(), "nothing is there yet"
    here.save(1)
    (here.path / "panel.png").write_bytes(b"\x89PNG\xff")
    (here.path / ".lock").touch()
    assert here.upload() and not here.upload()
    assert there.fetch() and not there.fetch()
    assert there.files == here.files
    there.save(2)
    there.upload()
    here.fetch()
    assert here.files == there.files and here.files["last.pt"][0] == 2
    assert len([info for info in here.objects.list("runs") if "last.pt" in info.name]) == 1, "the older is deleted"


def test_what_was_trained_here_and_not_uploaded_is_kept(machine):
    here = machine("here")
    here.save(1)
    here.upload()
    here.save(2)
    assert not here.fetch()
    assert here.files["last.pt"][0] == 2


def test_what_another_machine_has_not_is_of_an_earlier_attempt(machine):
    here, there = machine("here"), machine("there")
    here.save(1)
    here.upload()
    there.fetch()
    (here.path / "failure.json").write_text("{}")
    (here.path / "previous.pt").write_bytes(b"old")
    there.save(2)
    there.upload()
    here.fetch()
    assert here.files.keys() == {"last.pt", "epochs.jsonl"}


def test_an_upload_that_was_killed_changes_nothing(machine, monkeypatch):
    here, there = machine("here"), machine("there")
    here.save(1)
    here.upload()
    before = here.files
    here.save(2)
    monkeypatch.setattr(here.objects, "write", lambda name, data: pytest.fail("killed"))
    with pytest.raises(pytest.fail.Exception):
        here.upload()
    there.fetch()
    assert there.files == before


def test_a_file_that_differs_from_its_checksum_is_refused(machine):
    here, there = machine("here"), machine("there")
    here.save(1)
    here.upload()
    (large,) = (info.name for info in here.objects.list("runs") if "last.pt" in info.name)
    here.objects.write(large, b"\1" * 299_999 + b"\2")
    with pytest.raises(UserError, match=rf"run {RUN} in store .* is damaged .* delete runs/{RUN} there"):
        there.fetch()
    assert "last.pt" not in there.files


@pytest.mark.parametrize("text", ["", "[]", '{"id": 1}', "[" * 100_000])
def test_a_manifest_that_is_none(machine, text):
    here = machine("here")
    here.objects.write(f"runs/{RUN}/manifest.json", text.encode())
    with pytest.raises(UserError, match=r"manifest\.json is none"):
        here.fetch()


@pytest.mark.parametrize("name", ["../evil", ".manifest.json", "a/b"])
def test_a_manifest_writes_only_into_its_folder(machine, name):
    here = machine("here")
    entry = {"sha256": "x", "size": 1, "text": "x"}
    here.objects.write(f"runs/{RUN}/manifest.json", json.dumps({"id": "1", "files": {name: entry}}).encode())
    with pytest.raises(UserError, match="which is none of a run"):
        here.fetch()


def test_without_checkpoints_the_small_files_are_read(machine):
    here, there = machine("here"), machine("there")
    here.save(1)
    here.upload()
    there.fetch(whole=False)
    assert there.files.keys() == {"epochs.jsonl"}
    assert not run_files.is_ours(there.objects, there.root, RUN), "a part is never uploaded over the whole"
    there.fetch()
    assert there.files == here.files


def test_the_longest_list_of_retries_is_kept(machine):
    here, there = machine("here"), machine("there")
    for each, retries in ((here, "1\n"), (there, "1\n2\n")):
        each.save(1)
        (each.path / "retries.jsonl").write_text(retries)
    here.upload()
    there.fetch()
    assert there.files["retries.jsonl"] == b"1\n2\n", "a retry that is forgotten would be made again and again"
    assert there.upload() and here.fetch()
    assert here.files["retries.jsonl"] == b"1\n2\n"
    (here.path / "retries.jsonl").unlink()
    here.upload()
    there.fetch()
    assert there.files["retries.jsonl"] == b"1\n2\n"


def test_how_a_run_ended_is_read_wherever_it_was_trained(machine, address, tmp_path):
    here, there = machine("here"), machine("there")
    opened(address, here.root)
    ledger, store = Ledger(here.root / "ledger.jsonl", "mine"), Store(here.root)
    ledger.append({"event": "started", "run_id": RUN})
    there.save(1)
    there.upload()
    there.save(2)  # it was stopped before this was uploaded
    ledger.append_epochs(RUN, [{"epoch": 1.0, "val/miou": 10.0}, {"epoch": 2.0, "val/miou": 20.0}])
    assert end_of(ledger, store, RUN) == ("stopped", {"last": {"epoch": 2.0, "val/miou": 20.0}}, "at epoch 2")
    run_folder.write_failure(there.path, "nan", "loss is not finite")
    there.upload()
    assert end_of(ledger, store, RUN, "its process died").facts == {"cause": "nan", "reason": "loss is not finite"}


def settings(machine, address):
    """Of the run, for a process on a machine."""
    opened(address, machine.root)
    store = {"root": str(machine.root), "address": address}
    return {"run_id": RUN, "store": store, "place": {"teacher": None, "out_dir": str(machine.path)}, "workers": 2}


def test_a_failure_of_workers_elsewhere_is_read_and_one_of_an_earlier_attempt_is_not(machine, address, monkeypatch):
    here, there = machine("here"), machine("there")
    seen = Failure("lost", "a worker died")
    monkeypatch.setattr(trial, "_group", lambda job, below=None: seen)

    def fails(reason):
        there.save(1)
        if reason:
            run_folder.write_failure(there.path, "bug", reason)
            run_folder.record_faulty_machine(there.path, "0f1e")
            (there.path / "retries.jsonl").write_text("")
        there.upload()

    (here.path / "retries.jsonl").write_text("1\n")
    fails("a bug")
    assert trial.attempt([settings(here, address)]) == {RUN: Failure("bug", "a bug")}
    assert here.files.keys() == {"retries.jsonl", "failure.json", "faulty_machines.txt"}
    with uploading([settings(there, address)]):
        assert trial.attempt([settings(here, address)]) == {RUN: seen}, "the next attempt begins without it"
        run_folder.write_failure(there.path, "memory", "too large")
    assert trial.attempt([settings(here, address)]) == {RUN: Failure("memory", "too large")}


def test_checkpoints_are_uploaded_while_a_run_trains_and_at_its_end(machine, address, monkeypatch):
    monkeypatch.setattr(uploads, "LOOK_S", 0.02)
    monkeypatch.setattr(uploads, "UPLOAD_S", 0.0)
    here, there = machine("here"), machine("there")
    there.save(1)
    there.upload()
    opened(address, here.root)
    job = {"run_id": RUN, "store": {"root": str(here.root), "address": address}, "place": {"teacher": None}}
    with uploading([job]):
        assert here.files == there.files, "it is fetched before it trains"
        here.save(2)
        while not there.fetch():
            pass
        assert there.files["last.pt"][0] == 2
        here.save(3)
        (here.path / "result.json").write_text("{}")
    there.fetch()
    assert there.files == here.files and "result.json" in there.files
    assert working_copy(here.root).has_checkpoint(RUN)
