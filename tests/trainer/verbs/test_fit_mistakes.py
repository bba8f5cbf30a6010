"""fit: mistakes are one line and exit code 2, failures one line and exit code 1 or 3; mistakes leave nothing behind."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.cli import in_one_line
from trainer.files import checkpoint

Make = Callable[..., Any]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "optim.leanring_rate=1"], "optim.leanring_rate: unknown key"),
        (["--set", "optmi.lr=1"], "optmi: unknown key; did you mean 'optim'?"),
        (["--set", "optim.lr='1e-3'"], "YAML reads '1e-3' as text, not as a number; write 1.0e-3"),
        (["--set", "optim.lr=-1"], "optim.lr: Input should be greater than 0, but got -1"),
        (["--set", "optim.lr"], "--set needs PATH=VALUE, for example optim.lr=0.001, but got 'optim.lr'"),
        (["--set", "optim.norm_batch=3"], "norm_batch must divide global_batch (4) but got 3"),
        (["--set", "student.name=segformer_b9"], "unknown model 'segformer_b9'; did you mean 'segformer_b"),
        (["--set", "distill={pae: {}}"], "unknown distiller 'pae'; did you mean 'pea'?"),
        (["--set", "distill={pea: {options: {weights: [1]}}}"], "distill.pea: unknown option 'weights'"),
        (["--set", "distill={pea: {}, pea_ea: {}}"], "pea and pea_ea are alternatives"),
        (["--set", "data.name=cityscape"], "unknown data set 'cityscape'; did you mean 'cityscapes'?"),
        (["--set", "data={name: cityscapes}"], "data set 'cityscapes' needs a folder; give --data-root FOLDER"),
        (["--set", "data.name=camvid", "--set", "data.options={}", "--data-root", "/nowhere"], "no folder /nowhere"),
        (["--set", "optim.global_batch=64"], "global_batch 64 exceeds the 16 training images"),
        (["--micro-batch", "3"], "micro_batch must divide the 4 samples a worker has per step but got 3"),
        (["--micro-batch", "1"], "micro_batch 1 would split BatchNorm groups of 2"),
        (["--device", "cuda:9"], "use --device cpu"),
        (["--set", "student.init=/nowhere/b0.pth"], "cannot read the weights /nowhere/b0.pth"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2_and_leaves_nothing(
    arguments: list[str], message: str, written: Make, command: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, said, errors = command("fit", written({"pea": {}}), "--out", tmp_path / "run", *arguments)
    assert code == 2
    assert said == ""
    assert message in errors
    assert len(errors.splitlines()) == 1
    assert errors.startswith("error: ")
    assert {path.name for path in tmp_path.iterdir()} == {"config.yaml"}


@pytest.mark.slow
def test_special_files_are_no_input(written: Make, command: Make, tmp_path: Path) -> None:
    """Devices and pipes, whose reading would never end, as config, weights and images."""
    os.mkfifo(tmp_path / "pipe")
    for special in (Path("/dev/zero"), tmp_path / "pipe"):
        kind = "a device" if special.name == "zero" else "a pipe"
        told = f"error: {special} is {kind}, and only files can be read; write its content to a file and give that\n"
        config = written({"pea": {}})
        for arguments in (
            ("fit", special, "--out", tmp_path / "run"),
            ("fit", config, "--out", tmp_path / "run", "--set", f"student.init={special}"),
            ("fit", config, "--out", tmp_path / "run", "--set", f"teacher.checkpoint={special}"),
            ("fit", config, "--out", tmp_path / "run", "--teacher", special),
            ("eval", special, "--config", config),
            ("eval", config, "--config", special),
            ("export", special, "--config", config, "--out", tmp_path / "x.onnx"),
            ("predict", config, special, "--config", config, "--out", tmp_path / "out"),
        ):
            assert command(*arguments) == (2, "", told), arguments
    assert {path.name for path in tmp_path.iterdir()} == {"config.yaml", "pipe"}


@pytest.mark.slow
def test_weights_that_do_not_fit_are_reported_before_anything_is_written(
    written: Make, command: Make, tmp_path: Path, teacher_weights: Path
) -> None:
    other = tmp_path / "other.pt"
    state = checkpoint.load(teacher_weights)["model"]
    checkpoint.save(other, {"model": {name: value for name, value in state.items() if "block3" not in name}})
    (tmp_path / "text.pt").write_text("weights")
    for change, message in (
        ({"teacher.checkpoint": str(other)}, "missing (block3.0.norm1.weight"),
        ({"teacher.name": "segformer_b0"}, "mismatched (patch_embed1.proj.weight"),
        ({"teacher.checkpoint": str(tmp_path / "text.pt")}, "is not a checkpoint that can be read safely"),
        ({"teacher.miou": 99.0}, "states 99.00 mIoU but reaches"),
        ({"student.init": str(teacher_weights)}, "does not fit the backbone"),
    ):
        code, said, errors = command("fit", written({"pea": {}}, change), "--out", tmp_path / "run")
        assert (code, said) == (2, "")
        assert message in errors
        assert len(errors.splitlines()) == 1
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        ("- a\n- b\n", "expected a mapping of sections"),
        ("optim: {lr: [}", "is not valid YAML"),
        ("seed: 1\nseed: 2", "line 2: key 'seed' is written twice; keep one"),
        ("", "expected a mapping of sections"),
    ],
)
def test_a_config_that_is_none(text: str | None, message: str, command: Make, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "config.yaml").write_text(text)
    code, _, errors = command("fit", tmp_path / "config.yaml", "--out", tmp_path / "run")
    assert code == 2
    assert message in errors
    assert len(errors.splitlines()) == 1


def test_a_study_is_sent_to_the_command_that_runs_it(command: Make, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("name: study\nbase: {data: {name: scenes}}\nseeds: [0]\n")
    code, _, errors = command("fit", tmp_path / "study.yaml", "--out", tmp_path / "run")
    assert code == 2
    assert f"is a study, which has many runs; run it with: transkd run {tmp_path / 'study.yaml'}" in errors
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_that_diverges_is_one_line_and_exit_code_1(written: Make, command: Make, tmp_path: Path) -> None:
    code, _, errors = command("fit", written({"pea": {}}), "--out", tmp_path / "run", "--set", "optim.lr=1.0e+30")
    assert code == 1
    assert errors.startswith("failed: loss/") and "is not finite at step" in errors
    assert len(errors.splitlines()) == 1


def full_disk(path: str | None) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", path)


@pytest.mark.parametrize(
    ("action", "code", "said"),
    [
        (
            partial(full_disk, "/run/last.pt"),
            3,
            "stopped: OSError: [Errno 28] No space left on device: '/run/last.pt'; ",
        ),
        (
            partial(full_disk, None),
            3,
            "stopped: OSError: [Errno 28] No space left on device; make room and run the same",
        ),
        (lambda: torch.empty(1 << 50), 1, "failed: no memory left for 4503599627370496 bytes\n"),
        (lambda: Path("/none/here").mkdir(), 2, "error: /none/here: No such file or directory; correct the path"),
    ],
)
def test_what_the_machine_lacks_is_one_line(
    action: Callable[[], object], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        in_one_line(action)
    errors = capsys.readouterr().err
    assert end.value.code == code
    assert errors.startswith(said) and len(errors.splitlines()) == 1
