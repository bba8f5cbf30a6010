"""A damaged checkpoint costs an epoch and not the run, and is told; the numbers stay those of the undisturbed run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.config import UserError
from trainer.files import checkpoint, generations, run_folder
from trainer.files.failure import cause_of
from trainer.training.loop import fit

Make = Callable[..., Any]
CPU = torch.device("cpu")
EPOCHS = 4


def state(epoch: int) -> dict[str, Any]:
    return {"model": torch.full((50_000,), float(epoch)), "history": [{"epoch": float(n + 1)} for n in range(epoch)]}


def cut(path: Path, size: int = 100_000) -> None:
    """As a full disk, or a machine that lost its power, may leave it."""
    assert size < path.stat().st_size
    path.write_bytes(path.read_bytes()[:size])


def flip(path: Path) -> None:
    """One bit of one weight: torch.load reads it without a word."""
    content = bytearray(path.read_bytes())
    content[content.index(checkpoint.load(path)["model"].numpy().tobytes()) + 400] ^= 1
    path.write_bytes(content)
    torch.load(path, weights_only=True)


def flip_index(path: Path, part: bytes, offset: int) -> None:
    """One bit of what follows the parts of a zip file: zipfile and torch's own reader refuse it in many ways."""
    content = bytearray(path.read_bytes())
    content[content.rindex(part) + offset] ^= 2
    path.write_bytes(content)


DAMAGES = [
    *(pytest.param(partial(cut, size=size), id=f"cut-{size}") for size in (0, 100, 4096, 60_000, 100_000)),
    flip,
    pytest.param(partial(flip_index, part=b"PK\x01\x02", offset=10), id="method"),  # NotImplementedError
    pytest.param(partial(flip_index, part=b"PK\x06\x07", offset=16), id="disks"),  # zipfile.is_zipfile raises
    pytest.param(partial(flip_index, part=b"PK\x06\x06", offset=24), id="entries"),  # for torch alone
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_one_before_is_used_and_it_is_said(damage: Callable[[Path], None], tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        generations.save(tmp_path, state(epoch))
    assert {path.name for path in tmp_path.iterdir()} == {"last.pt", "previous.pt"}
    damage(tmp_path / "last.pt")
    for is_rank_zero in (False, True):  # another worker must find what the first one finds, before or after it
        restored = generations.restore(tmp_path, CPU, is_rank_zero)
        assert restored is not None and len(restored["history"]) == 2
    said = ["checkpoint last.pt could not be read; resumed after epoch 2 from previous.pt"]
    assert run_folder.read_notes(tmp_path) == said
    generations.save(tmp_path, state(3))
    restored = generations.restore(tmp_path, CPU, is_rank_zero=True)
    assert restored is not None and len(restored["history"]) == 3
    assert run_folder.read_notes(tmp_path) == said


@pytest.mark.parametrize("damage", DAMAGES)
def test_where_both_are_damaged_the_run_begins_again(damage: Callable[[Path], None], tmp_path: Path) -> None:
    for epoch in (1, 2):
        generations.save(tmp_path, state(epoch))
    damage(tmp_path / "last.pt")
    damage(tmp_path / "previous.pt")
    assert generations.restore(tmp_path, CPU, is_rank_zero=True) is None
    assert run_folder.read_notes(tmp_path) == [
        "checkpoint last.pt and previous.pt could not be read; started again from the beginning"
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt"}


def test_a_kill_between_the_two_names_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for epoch in (1, 2):
        generations.save(tmp_path, state(epoch))
    replace, calls = Path.replace, 0

    def dying(path: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise InterruptedError
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", dying)
    with pytest.raises(InterruptedError):
        generations.save(tmp_path, state(3))
    restored = generations.restore(tmp_path, CPU, is_rank_zero=True)
    assert restored is not None and len(restored["history"]) == 2
    assert run_folder.read_notes(tmp_path) == []


def test_what_is_whole_and_cannot_be_read_is_not_thrown_away(tmp_path: Path) -> None:
    torch.save({"model": object}, tmp_path / "last.pt")
    with pytest.raises(UserError, match="Python objects"):
        generations.restore(tmp_path, CPU, is_rank_zero=True)
    assert (tmp_path / "last.pt").exists()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 400 bytes"),
    ],
)
def test_no_memory_for_a_checkpoint_is_told_as_that(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(*_: object, **__: object) -> None:
        raise error

    generations.save(tmp_path, state(1))
    monkeypatch.setattr(torch, "load", lacking)
    with pytest.raises(type(error)) as raised:
        generations.restore(tmp_path, CPU, is_rank_zero=True)
    assert cause_of(raised.value) == "memory"
    assert (tmp_path / "last.pt").exists()


def test_a_worker_that_comes_as_the_first_one_removes_the_damaged_finds_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for epoch in (1, 2):
        generations.save(tmp_path, state(epoch))
    load = checkpoint.load

    def load_late(path: Path, device: torch.device) -> dict[str, Any]:
        (tmp_path / "last.pt").unlink(missing_ok=True)
        return load(path, device)

    monkeypatch.setattr(checkpoint, "load", load_late)
    restored = generations.restore(tmp_path, CPU, is_rank_zero=False)
    assert restored is not None and len(restored["history"]) == 1


def test_checksums_are_not_missed_where_torch_wrote_none(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"model": torch.ones(3)}, tmp_path / "public.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(checkpoint.load(tmp_path / "public.pt")["model"], torch.ones(3))


@pytest.mark.slow
@pytest.mark.parametrize("damaged", [["last.pt"], ["last.pt", "previous.pt"]])
def test_a_run_goes_on_to_the_undisturbed_numbers(tiny: Make, place: Make, damaged: list[str]) -> None:
    config = tiny({}, {"optim.epochs": EPOCHS})
    undisturbed, disturbed = (place(name) for name in ("undisturbed", "disturbed"))
    fit(config, undisturbed, report=lambda *_: None)

    def stop(metrics: dict[str, float], path: Path | None) -> None:
        if metrics["epoch"] == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fit(config, disturbed, report=stop)
    for name in damaged:
        cut(disturbed.out_dir / name)
    fit(config, disturbed, report=lambda *_: None)

    both = [checkpoint.load(folder.out_dir / "last.pt")["model"] for folder in (undisturbed, disturbed)]
    assert all(torch.equal(both[1][name], tensor) for name, tensor in both[0].items())
    assert [epoch["epoch"] for epoch in run_folder.read_epochs(disturbed.out_dir)] == [1, 2, 3, 4]
    assert [epoch["loss"] for epoch in run_folder.read_epochs(disturbed.out_dir)] == [
        epoch["loss"] for epoch in run_folder.read_epochs(undisturbed.out_dir)
    ]
    assert len(run_folder.read_notes(disturbed.out_dir)) == 1
    assert not (disturbed.out_dir / "previous.pt").exists(), "a finished run keeps one"
