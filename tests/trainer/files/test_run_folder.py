"""The files of a run's folder: whole or absent, and readable after any kill."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainer.config import UserError, parse, read_yaml
from trainer.files import checkpoint, run_folder
from trainer.files.failure import failure_of

Make = Callable[..., Any]


def test_a_folder_belongs_to_one_config(tiny: Make, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "run"
    run_folder.open_folder(out, tiny(), is_rank_zero=True)
    assert parse(read_yaml(out / "config.yaml")) == tiny()
    run_folder.open_folder(out, tiny(), is_rank_zero=True)
    with pytest.raises(UserError, match="choose another folder"):
        run_folder.open_folder(out, tiny({}, {"seed": 1}), is_rank_zero=False)


def test_a_config_that_was_edited_into_nonsense_is_named(tiny: Make, tmp_path: Path) -> None:
    run_folder.open_folder(tmp_path, tiny(), is_rank_zero=True)
    (tmp_path / "config.yaml").write_text("optim: {lrr: 1}\n")
    with pytest.raises(UserError, match=r"config\.yaml: optim\.lrr: unknown key; did you mean 'lr'"):
        run_folder.open_folder(tmp_path, tiny(), is_rank_zero=True)


def test_epochs_are_read_up_to_a_line_half_written(tmp_path: Path) -> None:
    assert run_folder.read_epochs(tmp_path) == []
    epochs = [{"epoch": 1.0, "loss": 0.1 + 0.2}, {"epoch": 2.0, "loss": 1e-300}]
    for epoch in epochs:
        run_folder.append_epoch(tmp_path, epoch)
    assert run_folder.read_epochs(tmp_path) == epochs
    with (tmp_path / "epochs.jsonl").open("a") as file:
        file.write('{"epoch": 3.0, "lo')
    assert run_folder.read_epochs(tmp_path) == epochs
    run_folder.write_epochs(tmp_path, epochs[:1])
    assert run_folder.read_epochs(tmp_path) == epochs[:1]


def test_result_and_failure_are_there_or_not(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run_folder.read_result(out) is None
    assert run_folder.read_failure(out) is None
    run_folder.clear_failure(out)
    run_folder.write_failure(out, "UserError", "why")  # before any folder was made: the reason is not lost
    assert run_folder.read_failure(out) == {"cause": "UserError", "reason": "why"}
    run_folder.clear_failure(out)
    assert run_folder.read_failure(out) is None
    run_folder.write_result(out, {"run_id": "r", "last": {"val/miou": 1 / 3}})
    assert run_folder.read_result(out) == {"run_id": "r", "last": {"val/miou": 1 / 3}}
    (out / "result.json").write_text('{"run_id": "r"')
    assert run_folder.read_result(out) is None  # cut off: the checkpoint makes it again
    assert {path.name for path in out.iterdir()} == {"result.json"}


def test_who_waits_for_a_folder_gets_it_when_it_is_let_go(tmp_path: Path) -> None:
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with run_folder.lock_folder(tmp_path / "run"):
            held.set()
            let_go.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    try:
        with pytest.raises(UserError, match="being trained in"), run_folder.lock_folder(tmp_path / "run", wait_s=0.2):
            pytest.fail("two hold one folder")
        threading.Timer(0.3, let_go.set).start()
        with run_folder.lock_folder(tmp_path / "run", wait_s=30):
            assert let_go.is_set()
    finally:
        let_go.set()
        holder.join()


def test_a_process_that_has_lost_its_folder_writes_no_epoch_into_it(tmp_path: Path) -> None:
    """As on a network disk, whose server gives the lock of a machine that stands still to another."""
    out = tmp_path / "run"
    with run_folder.lock_folder(out):
        run_folder.append_epoch(out, {"epoch": 1.0})
        checkpoint.save(out / "last.pt", {"epoch": 1}, out / "previous.pt")
        (out / ".lock").write_text("7\nanother\n")
        for write in (
            lambda: run_folder.append_epoch(out, {"epoch": 2.0}),
            lambda: run_folder.write_result(out, {}),
            lambda: checkpoint.save(out / "last.pt", {"epoch": 2}, out / "previous.pt"),
        ):
            with pytest.raises(run_folder.LostFolderError, match="another process trains in") as lost:
                write()
            assert failure_of(lost.value).cause == "lost"
    assert run_folder.read_epochs(out) == [{"epoch": 1.0}]
    assert checkpoint.load(out / "last.pt") == {"epoch": 1}
    assert {path.name for path in out.iterdir()} == {".lock", "epochs.jsonl", "last.pt"}, "the lock is the other's"
    run_folder.append_epoch(out, {"epoch": 2.0})  # here nothing is locked


def test_notes_are_read_back_but_for_one_half_written(tmp_path: Path) -> None:
    assert run_folder.read_notes(tmp_path) == []
    run_folder.append_note(tmp_path, "first")
    run_folder.append_note(tmp_path, "second")
    with (tmp_path / "notes.txt").open("a") as file:
        file.write("thi")
    assert run_folder.read_notes(tmp_path) == ["first", "second"]


def test_damaged_files_are_no_tracebacks(tmp_path: Path) -> None:
    """What is whole is read, and what follows damage is not."""
    noise = b'{"epoch": 2.0, "\xff\xfe'
    (tmp_path / "epochs.jsonl").write_bytes(b'{"epoch": 1.0}\n' + noise + b"\n")
    (tmp_path / "notes.txt").write_bytes(b"one\nt\xffo\n")
    for name in ("result.json", "failure.json"):
        (tmp_path / name).write_bytes(noise)
    assert run_folder.read_epochs(tmp_path) == [{"epoch": 1.0}]
    assert run_folder.read_notes(tmp_path) == ["one", "t\ufffdo"]
    assert run_folder.read_result(tmp_path) is None
    assert run_folder.read_failure(tmp_path) is None
    (tmp_path / "failure.json").write_text("[]")
    assert run_folder.read_failure(tmp_path) is None


def test_a_run_s_folder_holds_no_password_that_an_error_carries(tmp_path: Path) -> None:
    run_folder.append_note(tmp_path, "no http://u:hunter2@h")
    run_folder.write_failure(tmp_path, "bug", "no http://u:hunter2@h")
    assert run_folder.read_notes(tmp_path) == ["no http://***@h"]
    assert run_folder.read_failure(tmp_path) == {"cause": "bug", "reason": "no http://***@h"}
