"""A store is copied between folders and addresses: ledger, runs and reports, whole and again from where it stopped."""

from pathlib import Path

import pytest

from orchestrator.store.folder import Store
from orchestrator.store.journal import Writer
from orchestrator.store.ledger import Ledger
from orchestrator.store.objects import run_files
from orchestrator.store.objects.copy_store import copy_store
from orchestrator.verbs.repair import repair
from trainer.config import UserError


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A store of two runs, of which the first journal and a driver's tell."""
    monkeypatch.setenv("TRANSKD_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "source"
    for run_id, journal in (("old", root / "ledger.jsonl"), ("new", root / "journals" / "a.jsonl")):
        Writer(journal).append({"event": "finished", "run_id": run_id, "last": {"epoch": 1.0}})
        folder = root / "runs" / run_id
        folder.mkdir(parents=True)
        (folder / "last.pt").write_bytes(run_id.encode() * 100_000)
        (folder / "result.json").write_text("{}")
    (root / "studies" / "a").mkdir(parents=True)
    (root / "studies" / "a" / "table.txt").write_text("the table")
    assert Store(root).identity
    return root


def files(root):
    kept = [*root.glob("runs/*/[!.]*"), *root.glob("studies/*/*"), *root.glob("journals/*.jsonl")]
    return {path.relative_to(root): path.read_bytes() for path in [*kept, root / "ledger.jsonl", root / "identity"]}


def test_there_and_back_again(source, address, tmp_path):
    assert copy_store(source, address) == 2
    assert copy_store(address, tmp_path / "back") == 2
    assert files(tmp_path / "back") == files(source)
    assert Ledger(tmp_path / "back" / "ledger.jsonl").finished("old")


@pytest.mark.slow
def test_a_copy_that_was_stopped_goes_on(source, address, tmp_path, monkeypatch):
    sent = run_files.upload
    with monkeypatch.context() as patch:
        patch.setattr(run_files, "upload", lambda *a, **k: sent(*a, **k) if a[2] == "new" else pytest.fail("stopped"))
        with pytest.raises(pytest.fail.Exception):
            copy_store(source, address)
    said = []
    copy_store(source, address, said.append)
    assert said == ["old is sent"]
    Writer(source / "journals" / "a.jsonl").append({"event": "note", "run_id": "new", "text": "later"})
    (source / "runs" / "new" / "last.pt").write_bytes(b"later" * 100_000)
    copy_store(source, address, said.append)
    assert said[1:] == ["new is sent"]
    copy_store(address, tmp_path / "back")
    assert files(tmp_path / "back") == files(source)


@pytest.mark.slow
def test_between_addresses_and_between_folders(source, address, tmp_path):
    copy_store(source, address)
    copy_store(address, f"file://{tmp_path}/other")
    copy_store(f"file://{tmp_path}/other", tmp_path / "folder")
    copy_store(tmp_path / "folder", tmp_path / "last")
    assert files(tmp_path / "last") == files(source)


def test_another_store_is_not_written_over(source, address, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    Store(other).identity  # noqa: B018
    copy_store(source, address)
    for target in (address, source):
        with pytest.raises(UserError, match=r"holds another store, whose identity is [0-9a-f]{12}; name an empty one"):
            copy_store(other, target)
    with pytest.raises(UserError, match="holds another store"):
        copy_store(address, other)


def test_a_store_at_an_address_is_repaired_as_a_copy_in_a_folder(source, tmp_path):
    address = f"file://{tmp_path / 'bucket'}"
    copy_store(source, address)
    with pytest.raises(UserError, match=r"repair needs a store in a folder but got .*bucket.*; `transkd store copy"):
        repair(Path(address))
