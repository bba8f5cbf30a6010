"""The files of a run's folder: whole or absent, and readable after any kill."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainer.config import UserError, parse, read_yaml
from trainer.files import run_folder as record

Make = Callable[..., Any]


def test_a_folder_belongs_to_one_config(tiny: Make, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "run"
    record.open_folder(out, tiny(), leads=True)
    assert parse(read_yaml(out / "config.yaml")) == tiny()
    record.open_folder(out, tiny(), leads=True)
    with pytest.raises(UserError, match="choose another folder"):
        record.open_folder(out, tiny({}, {"seed": 1}), leads=False)


def test_a_config_that_was_edited_into_nonsense_is_named(tiny: Make, tmp_path: Path) -> None:
    record.open_folder(tmp_path, tiny(), leads=True)
    (tmp_path / "config.yaml").write_text("optim: {lrr: 1}\n")
    with pytest.raises(UserError, match=r"config\.yaml: optim\.lrr: unknown key; did you mean 'lr'"):
        record.open_folder(tmp_path, tiny(), leads=True)


def test_epochs_are_read_up_to_a_line_half_written(tmp_path: Path) -> None:
    assert record.read_epochs(tmp_path) == []
    epochs = [{"epoch": 1.0, "loss": 0.1 + 0.2}, {"epoch": 2.0, "loss": 1e-300}]
    for epoch in epochs:
        record.append_epoch(tmp_path, epoch)
    assert record.read_epochs(tmp_path) == epochs
    with (tmp_path / "epochs.jsonl").open("a") as file:
        file.write('{"epoch": 3.0, "lo')
    assert record.read_epochs(tmp_path) == epochs
    record.write_epochs(tmp_path, epochs[:1])
    assert record.read_epochs(tmp_path) == epochs[:1]


def test_result_and_failure_are_there_or_not(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert record.read_result(out) is None
    assert record.read_failure(out) is None
    record.clear_failure(out)
    record.write_failure(out, "UserError", "why")  # before any folder was made: the reason is not lost
    assert record.read_failure(out) == {"cause": "UserError", "reason": "why"}
    record.clear_failure(out)
    assert record.read_failure(out) is None
    record.write_result(out, {"run_id": "r", "last": {"val/miou": 1 / 3}})
    assert record.read_result(out) == {"run_id": "r", "last": {"val/miou": 1 / 3}}
    (out / "result.json").write_text('{"run_id": "r"')
    assert record.read_result(out) is None  # cut off: the checkpoint makes it again
    assert {path.name for path in out.iterdir()} == {"result.json"}


def test_who_waits_for_a_folder_gets_it_when_it_is_let_go(tmp_path: Path) -> None:
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with record.alone(tmp_path / "run"):
            held.set()
            let_go.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    try:
        with pytest.raises(UserError, match="being trained in"), record.alone(tmp_path / "run", wait_s=0.2):
            pytest.fail("two hold one folder")
        threading.Timer(0.3, let_go.set).start()
        with record.alone(tmp_path / "run", wait_s=30):
            assert let_go.is_set()
    finally:
        let_go.set()
        holder.join()


def test_notes_are_read_back_but_for_one_half_written(tmp_path: Path) -> None:
    assert record.read_notes(tmp_path) == []
    record.append_note(tmp_path, "first")
    record.append_note(tmp_path, "second")
    with (tmp_path / "notes.txt").open("a") as file:
        file.write("thi")
    assert record.read_notes(tmp_path) == ["first", "second"]
