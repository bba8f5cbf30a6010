"""Checkpoints: old or new and never half, and refused in one line when they are something else."""

from __future__ import annotations

import argparse
import collections
import datetime
import decimal
import fractions
import os
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainer.config import UserError
from trainer.files import checkpoint


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    state = {"model": {"a": torch.arange(3)}, "history": [{"epoch": 1.0}], "run_id": "x", "best": {}}
    checkpoint.save(tmp_path / "last.pt", state)
    loaded = checkpoint.load(tmp_path / "last.pt")
    assert torch.equal(loaded.pop("model")["a"], torch.arange(3))
    assert loaded == {name: value for name, value in state.items() if name != "model"}
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.parametrize("dies", ["torch.save", "os.fsync", "pathlib.Path.replace"])
def test_a_write_that_dies_leaves_the_old_file(dies: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"epoch": 1})

    def die(*_: object) -> None:
        raise InterruptedError

    monkeypatch.setattr(dies, die)
    with pytest.raises(InterruptedError):
        checkpoint.save(path, {"epoch": 2})
    assert checkpoint.load(path) == {"epoch": 1}


class Harmful:
    """What a checkpoint from a stranger may hold."""

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, ("harm",))


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Harmful()}, tmp_path / "bad.pt")
    with pytest.raises(UserError, match="is not a checkpoint that can be read safely"):
        checkpoint.load(tmp_path / "bad.pt")
    assert not (tmp_path / "harm").exists()


HARMLESS = {
    "numpy scalars": {"mIoU": np.float64(0.7), "lr": np.float32(0.1), "seed": np.int64(3), "best": np.bool_(True)},
    "numpy text and times": {"name": np.str_("road"), "when": np.datetime64("2024-01-01")},
    "numpy arrays": {"iou": np.arange(6.0).reshape(2, 3), "count": np.arange(3, dtype=np.uint8)},
    "arguments": {"args": argparse.Namespace(lr=0.1, out=Path("runs/x"), sizes=range(3))},
    "settings": {
        "args": types.SimpleNamespace(lr=0.1),
        "share": decimal.Decimal("0.5"),
        "ratio": fractions.Fraction(1, 3),
    },
    "times": {"when": datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC), "took": datetime.timedelta(1)},
}


@pytest.mark.parametrize("kind", HARMLESS)
@pytest.mark.parametrize("zipped", [True, False])
def test_types_that_run_no_code_are_read(kind: str, zipped: bool, tmp_path: Path) -> None:
    """What training programs put beside the weights: numbers of numpy, their arguments, times."""
    torch.save({"meta": HARMLESS[kind]}, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    loaded = checkpoint.load(tmp_path / "x.pt")["meta"]
    assert repr(loaded) == repr(HARMLESS[kind])


@pytest.mark.parametrize("factory", [list, dict, int, float, str, set, collections.OrderedDict, None])
def test_default_dictionaries_and_queues_are_read_as_plain_ones(factory: Any, tmp_path: Path) -> None:
    meta = {
        "log": collections.defaultdict(factory, {"loss": [0.5, 0.25], "n": 3}),
        "last": collections.deque([1, 2], 2),
    }
    torch.save({"meta": meta}, tmp_path / "x.pt")
    assert checkpoint.load(tmp_path / "x.pt")["meta"] == {"log": dict(meta["log"]), "last": [1, 2]}


def test_a_checkpoint_of_mmengine_is_read_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "mmengine.logging.history_buffer"
    there = types.ModuleType(name)
    exec("class HistoryBuffer:\n    pass", there.__dict__)  # as it is where the checkpoint is written
    buffer = there.HistoryBuffer()
    buffer.history = np.arange(3.0)
    with monkeypatch.context() as patched:
        for part in ("mmengine", "mmengine.logging", name):
            patched.setitem(sys.modules, part, there)
        torch.save(
            {"message_hub": {"log_scalars": {"loss": buffer}}, "state_dict": {"a": torch.ones(2)}}, tmp_path / "x.pt"
        )
    assert torch.equal(checkpoint.load(tmp_path / "x.pt")["state_dict"]["a"], torch.ones(2))


@pytest.mark.parametrize(
    "content", [b"", b"not a checkpoint", pickle.dumps([1, 2], protocol=2), b"PK\x03\x04 half a zip"]
)
def test_other_files_are_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.pt") as error:
        checkpoint.load(tmp_path / "x.pt")
    assert "\n" not in str(error.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such checkpoint: .*x\.pt"):
        checkpoint.load(tmp_path / "x.pt")
    with pytest.raises(UserError, match="is not a checkpoint that can be read safely"):
        checkpoint.load(tmp_path)
