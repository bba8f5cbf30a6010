"""python -m trainer: one model, one process; mistakes are one line and exit code 2, and leave nothing behind."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from orchestrator.cli import app as transkd
from trainer.cli import in_one_line
from trainer.config import TrainConfig, parse, read_yaml
from trainer.data.scenes import write_scenes
from trainer.files import checkpoint

Make = Callable[..., Any]
REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def written(recipe: Make, tmp_path: Path) -> Callable[..., Path]:
    """written(distill, changes) -> a YAML file of the recipe."""

    def write(distill: dict[str, Any] | None = None, changes: dict[str, Any] | None = None) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(recipe(distill, changes)))
        return path

    return write


def in_process_of_its_own(cache: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TRANSKD_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "trainer", *map(str, arguments)],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_fit_trains_and_says_how_it_went(written: Make, command: Make, tmp_path: Path, tiny: Make) -> None:
    out = tmp_path / "run"
    config = written({"csf": {}, "pea": {}})
    arguments = ("fit", config, "--out", out, "--set", "optim.lr=0.002", "--set", "seed=3", "--micro-batch", "2")
    code, said, errors = command(*arguments)
    assert (code, errors) == (0, "")
    result = json.loads((out / "result.json").read_text())
    lines = said.strip().splitlines()
    assert [line.split("  ")[0] for line in lines[:2]] == ["epoch 1/2", "epoch 2/2"]
    assert all("csf " in line and "pea " in line and "mIoU" in line for line in lines[:2])
    assert f"run {result['run_id']}: val mIoU {result['last']['val/miou']:.2f} at the last epoch" in lines[-1]
    stored: TrainConfig = parse(read_yaml(out / "config.yaml"))
    assert stored == tiny({"csf": {}, "pea": {}}, {"optim.lr": 0.002, "seed": 3})

    before = (out / "last.pt").stat().st_mtime_ns
    code, said, errors = command(*arguments)
    assert (code, errors) == (0, "")
    assert f"run {result['run_id']}: " in said
    assert (out / "last.pt").stat().st_mtime_ns == before


@pytest.mark.slow
def test_set_reads_yaml_and_removes_a_path(written: Make, command: Make, tmp_path: Path, tiny: Make) -> None:
    config = written({"csf": {}, "pea": {}}, {"optim.epochs": 1})
    options = "distill.pea.options={stage_weights: [0, 0, 0, 1]}"
    code, _, errors = command("fit", config, "--out", tmp_path / "run", "--set", options, "--set", "distill.csf=null")
    assert (code, errors) == (0, "")
    expected = tiny({"pea": {"options": {"stage_weights": [0, 0, 0, 1]}}}, {"optim.epochs": 1})
    assert parse(read_yaml(tmp_path / "run" / "config.yaml")) == expected


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


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"optim.lr": 0.002}, "optim.lr is 0.001 there and 0.002 here"),
        ({"optim.epochs": 3}, "optim.epochs is 2 there and 3 here"),
        ({"teacher": None, "distill": {}}, "teacher is {"),
        (
            {"distill.pea.weight": 0.5, "seed": 7},
            "distill.pea.weight is 1.0 there and 0.5 here, seed is 0 there and 7 here",
        ),
        (
            {"distill.pea.options": {"stage_weights": [0, 0, 0, 1]}},
            "options.stage_weights is null there and [0, 0, 0, 1]",
        ),
        (
            {f"optim.{k}": v for k, v in (("lr", 1.0), ("power", 2.0), ("epochs", 9), ("weight_decay", 0.5))}
            | {"seed": 1, "data.augment": "none"},
            ", and 1 more); choose another folder",
        ),
    ],
)
def test_a_folder_of_another_config_says_what_differs(
    changes: dict[str, Any], told: str, recipe: Make, written: Make, command: Make, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "config.yaml").write_text(yaml.safe_dump(recipe({"pea": {}})))
    before = (out / "config.yaml").read_bytes()
    code, said, errors = command("fit", written({"pea": {}}, changes), "--out", out)
    assert (code, said) == (2, "")
    assert errors.startswith(f"error: {out} holds a run of another config (")
    assert told in errors
    assert "--continue" not in errors, "the schedule to_end depends on the number of epochs"
    assert len(errors.splitlines()) == 1
    assert [path.name for path in out.iterdir()] == ["config.yaml"] and (out / "config.yaml").read_bytes() == before


def test_a_config_in_its_own_folder_stays_as_it_is_written(recipe: Make, command: Make, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("# why\n" + yaml.safe_dump(recipe({}, {"optim.epochs": 1})))
    before = path.read_bytes()
    assert command("fit", path, "--out", tmp_path)[0] == 0
    assert path.read_bytes() == before and (tmp_path / "result.json").exists()


@pytest.mark.slow
def test_epochs_are_raised_by_a_run_that_goes_on_from_the_shorter_one(
    written: Make, command: Make, tmp_path: Path
) -> None:
    """The result is that of a run which trains all epochs itself."""
    short, long, whole = (tmp_path / name for name in ("short", "long", "whole"))

    def fit(epochs: int, out: Path, *options: str | Path) -> tuple[int, str, str]:
        return command(
            "fit", written({"pea": {}}, {"optim.schedule": "reference", "optim.epochs": epochs}), "--out", out, *options
        )

    assert fit(1, short)[0] == 0
    before = {path: path.read_bytes() for path in short.iterdir()}
    code, _, errors = fit(2, short)
    assert code == 2
    assert f"; choose another folder; to go on with its epochs there, add --continue {short}" in errors
    code, said, errors = fit(2, long, "--continue", short)
    assert (code, errors) == (0, "")
    assert "epoch 1/2" not in said and "epoch 2/2" in said
    assert fit(2, whole)[0] == 0
    ours, theirs = (checkpoint.load(out / "last.pt") for out in (long, whole))
    assert ours["run_id"] == theirs["run_id"]
    assert all(torch.equal(tensor, theirs["model"][name]) for name, tensor in ours["model"].items())
    assert "1 epoch taken over from run" in (long / "notes.txt").read_text()
    assert fit(2, long, "--continue", short)[0] == 0
    assert {path: path.read_bytes() for path in short.iterdir()} == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"optim.schedule": "to_end", "optim.epochs": 3},
            "with schedule to_end all learning rates depend on optim.epochs",
        ),
        ({"optim.epochs": 3, "optim.lr": 0.5}, "only optim.epochs may differ, and must be higher here (optim.lr is"),
        (
            {"optim.epochs": 1},
            "only optim.epochs may differ, and must be higher here (optim.epochs is 2 there and 1 here)",
        ),
        ({}, "(the configs are equal)"),
        ({"optim.epochs": 3}, "no such checkpoint"),
    ],
)
def test_what_cannot_go_on_is_refused(
    changes: dict[str, Any], message: str, recipe: Make, written: Make, command: Make, tmp_path: Path
) -> None:
    stored = tmp_path / "short"
    stored.mkdir()
    (stored / "config.yaml").write_text(yaml.safe_dump(recipe({}, {"optim.schedule": "reference"})))
    config = written({}, {"optim.schedule": "reference", **changes})
    code, said, errors = command("fit", config, "--out", tmp_path / "new", "--continue", stored)
    assert (code, said, len(errors.splitlines())) == (2, "", 1)
    assert message in errors
    assert not (tmp_path / "new").exists()


def test_a_run_never_writes_over_what_it_reads(
    recipe: Make, command: Make, tmp_path: Path, teacher_weights: Path
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    shutil.copy(teacher_weights, out / "last.pt")
    shutil.copy(teacher_weights, out / "best.pt")
    (tmp_path / "link.pt").symlink_to(out / "best.pt")
    (tmp_path / "hard.pt").hardlink_to(out / "last.pt")
    (out / "notes.txt").write_text(yaml.safe_dump(recipe({})))
    config = tmp_path / "config.yaml"
    for name in ("run/best.pt", "link.pt", "hard.pt", "run/../run/last.pt"):
        weights = str(tmp_path / name)
        given = recipe({"pea": {}}, {"teacher.checkpoint": weights})
        config.write_text(yaml.safe_dump(given))
        code, _, errors = command("fit", config, "--out", out)
        assert code == 2
        assert f"would be written over {weights}, which is read; name another file" in errors
    config.write_text(yaml.safe_dump(recipe({"pea": {}})))
    assert "would be written over" in command("fit", config, "--out", out, "--teacher", tmp_path / "link.pt")[2]
    assert "would be written over" in command("fit", out / "notes.txt", "--out", tmp_path / "x" / ".." / "run")[2]
    assert {path.name for path in out.iterdir()} == {"last.pt", "best.pt", "notes.txt"}


def test_a_run_lies_outside_the_folders_of_its_images(written: Make, command: Make, tmp_path: Path) -> None:
    root = cityscapes(tmp_path / "city")
    config = written({}, {"data.name": "cityscapes", "data.options": {}})
    folder = next(root.glob("leftImg8bit/train/*"))
    (tmp_path / "link").symlink_to(folder)
    for out in (folder, folder / "run", tmp_path / "link", tmp_path / "link" / "run"):
        code, _, errors = command("fit", config, "--out", out, "--data-root", root)
        assert (code, len(errors.splitlines())) == (2, 1)
        assert f"--out {out} lies in {folder}, whose files are the data; choose another folder" in errors
    assert {path.suffix for path in folder.iterdir()} == {".png"}


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


def with_a_pipe(root: Path) -> None:
    path = sorted(root.glob("leftImg8bit/train/*/*.png"))[1]
    path.unlink()
    os.mkfifo(path)


def cityscapes(root: Path) -> Path:
    """A small folder in the layout of Cityscapes."""
    write_scenes(root, train=4, val=1, seed=0, size=(64, 128))
    return root


def without_label(root: Path) -> None:
    sorted(root.glob("gtFine/train/*/*.png"))[1].unlink()


def with_strange_label(root: Path) -> None:
    path = sorted(root.glob("gtFine/train/*/*.png"))[1]
    label = np.array(Image.open(path))
    label[5, 7] = 77
    Image.fromarray(label).save(path)


def with_broken_image(root: Path) -> None:
    path = sorted(root.glob("leftImg8bit/train/*/*.png"))[1]
    path.write_bytes(path.read_bytes()[:200])


def with_another_size(root: Path) -> None:
    path = sorted(root.glob("gtFine/train/*/*.png"))[1]
    Image.open(path).resize((64, 32), Image.Resampling.NEAREST).save(path)


def without_val(root: Path) -> None:
    (root / "leftImg8bit" / "val").rename(root / "leftImg8bit" / "valid")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_label, "000001_000019_leftImg8bit.png; add the label or remove the image"),
        (with_strange_label, "holds 77 at row 5, column 7 (1 such pixels) but may hold"),
        (with_broken_image, "000001_000019_leftImg8bit.png"),
        (with_a_pipe, "000001_000019_leftImg8bit.png is a pipe, and only files can be read"),
        (with_another_size, "is 128x64 but its label"),
        (without_val, "leftImg8bit/val; expected the layout"),
    ],
)
def test_bad_data_is_named_before_anything_is_written(
    damage: Callable[[Path], None], message: str, written: Make, command: Make, tmp_path: Path
) -> None:
    root = cityscapes(tmp_path / "city")
    damage(root)
    config = written({}, {"data.name": "cityscapes", "data.options": {}})
    code, said, errors = command("fit", config, "--out", tmp_path / "run", "--data-root", root)
    assert (code, said) == (2, "")
    assert message in errors
    assert len(errors.splitlines()) == 1
    assert not (tmp_path / "run").exists()


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


def test_another_run_in_the_folder_is_refused(written: Make, command: Make, tmp_path: Path) -> None:
    arguments = ("fit", written({}, {"optim.epochs": 1}), "--out", tmp_path / "run")
    assert command(*arguments)[0] == 0
    code, _, errors = command(*arguments, "--set", "seed=1")
    assert code == 2
    assert "choose another folder" in errors


HOLDER = """
import sys
from pathlib import Path
from trainer.files.run_folder import lock_folder
with lock_folder(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.slow
def test_two_processes_do_not_train_in_one_folder(written: Make, command: Make, tmp_path: Path) -> None:
    out = tmp_path / "run"
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(out)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        arguments = ("fit", written({}, {"optim.epochs": 1}), "--out", out)
        code, said, errors = command(*arguments)
        assert (code, said) == (2, "")
        assert f"{out} is being trained in by process {other.pid}; wait until it ends" in errors
        assert len(errors.splitlines()) == 1
        assert not (out / "config.yaml").exists()
    finally:
        other.kill()
        other.communicate(timeout=60)
    assert command(*arguments)[0] == 0, "a holder that was killed holds nothing"
    assert (out / "result.json").exists()
    assert not (out / ".lock").exists()


@pytest.fixture
def arms(recipe: Make, tmp_path: Path) -> Callable[..., list[Path]]:
    """arms(one={"pea": {}}, two=({}, {"seed": 1})) -> a YAML file of each."""

    def write(**asked: Any) -> list[Path]:
        for name, arm in asked.items():
            data = recipe(*arm) if isinstance(arm, tuple) else recipe(arm)
            (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(data))
        return [tmp_path / f"{name}.yaml" for name in asked]

    return write


@pytest.mark.slow
def test_several_configs_train_side_by_side(arms: Make, command: Make, tmp_path: Path) -> None:
    configs = arms(plain={}, taught={"csf": {}}, short=({"pea": {}}, {"optim.epochs": 1}))
    code, said, errors = command("fit", *configs, "--out", tmp_path / "runs", "--set", "optim.lr=0.002")
    assert (code, errors) == (0, "")
    lines = [line for line in said.splitlines() if "  epoch " in line]
    found = [line.split()[:3] for line in lines]  # runs may be told of in any order
    for name, epochs in (("plain", 2), ("taught", 2), ("short", 1)):
        assert [words for words in found if words[0] == name] == [
            [name, "epoch", f"{epoch}/{epochs}"] for epoch in range(1, epochs + 1)
        ]
    assert len(found) == 5
    for name in ("plain", "taught", "short"):
        result = json.loads((tmp_path / "runs" / name / "result.json").read_text())
        assert result["environment"]["cohort"] == 3
        assert f"{name}, run {result['run_id']}: val mIoU {result['last']['val/miou']:.2f} at the last epoch" in said
        assert not (tmp_path / "runs" / name / ".lock").exists()
    assert command("fit", configs[1], "--out", tmp_path / "one", "--set", "optim.lr=0.002")[0] == 0
    ours, theirs = (checkpoint.load(tmp_path / out / "last.pt") for out in ("runs/taught", "one"))
    assert ours["final_weights"] == theirs["final_weights"]


@pytest.mark.slow
def test_one_of_several_that_fails_is_one_line_and_the_others_finish(arms: Make, command: Make, tmp_path: Path) -> None:
    configs = arms(good={"pea": {}}, diverging=({"pea": {}}, {"optim.lr": 1e30}))
    code, said, errors = command("fit", *configs, "--out", tmp_path / "runs")
    assert code == 1
    assert errors.startswith("diverging failed: loss/") and "is not finite at step" in errors
    assert len(errors.splitlines()) == 1
    assert "good, run " in said and "diverging, run" not in said
    assert (tmp_path / "runs" / "good" / "result.json").exists()
    configs = arms(good={"pea": {}}, stated=({"csf": {}}, {"teacher.miou": 99.0}))
    code, said, errors = command("fit", *configs, "--out", tmp_path / "runs")
    assert (code, len(errors.splitlines())) == (2, 1)
    assert "stated failed: teacher" in errors and "states 99.00 mIoU but reaches" in errors


def test_several_configs_that_cannot_train_side_by_side(arms: Make, command: Make, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    one, seed, groups = arms(
        one={"pea": {}}, seed=({"pea": {}}, {"seed": 1}), groups=({}, {"optim.lr": 2.0, "optim.norm_batch": 4})
    )
    shutil.copy(one, tmp_path / "other" / "one.yaml")
    (tmp_path / "bad.yaml").write_text("optim: {lr: -1}\n")
    for arguments, told in (
        ((one, seed), f"{seed} cannot train side by side with {one}, for seed is 1 there and 0 in {one}; train it by"),
        ((one, tmp_path / "other" / "one.yaml"), "would both train in the folder one below --out; rename one"),
        ((one, one), "would both train in the folder one below --out; rename one"),
        ((one, groups, "--micro-batch", "2"), f"{groups}: micro_batch 2 would split BatchNorm groups of 4"),
        ((one, tmp_path / "bad.yaml"), f"{tmp_path / 'bad.yaml'}: optim.lr: Input should be greater than 0"),
        ((one, groups, "--continue", tmp_path / "run"), "--continue is for one run but got 2 configs; give one"),
    ):
        code, said, errors = command("fit", *arguments, "--out", tmp_path / "runs")
        assert (code, said, len(errors.splitlines())) == (2, "", 1)
        assert told in errors
        assert not (tmp_path / "runs").exists()


def test_a_study_is_sent_to_the_command_that_runs_it(command: Make, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("name: study\nbase: {data: {name: scenes}}\nseeds: [0]\n")
    code, _, errors = command("fit", tmp_path / "study.yaml", "--out", tmp_path / "run")
    assert code == 2
    assert f"is a study, which has many runs; run it with: transkd run {tmp_path / 'study.yaml'}" in errors
    assert not (tmp_path / "run").exists()


def test_transkd_has_the_verbs_too() -> None:
    ours = {command.name or command.callback.__name__ for command in transkd.registered_commands}
    assert ours >= {"fit", "eval", "predict", "export"}
    assert "data" in {group.name for group in transkd.registered_groups}


@pytest.mark.slow
def test_as_a_process(written: Make, scenes_cache: Path, tmp_path: Path) -> None:
    """What the shell sees: exit codes 0 and 2, one line on stderr, and no traceback."""
    bad = in_process_of_its_own(scenes_cache, "fit", written({"pae": {}}), "--out", tmp_path / "run")
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr == "error: unknown distiller 'pae'; did you mean 'pea'?\n"
    good = in_process_of_its_own(scenes_cache, "fit", written({"pea": {}}), "--out", tmp_path / "run")
    assert (good.returncode, good.stderr) == (0, "")
    assert (tmp_path / "run" / "result.json").exists()
    usage = in_process_of_its_own(scenes_cache)
    assert usage.returncode == 2
    assert "fit" in usage.stdout + usage.stderr


ALONE = """
import sys
from importlib import metadata
from packaging.requirements import Requirement

wanted, queue = set(), ["torch", "numpy", "pydantic", "pyyaml", "pyarrow", "pillow", "typer", "safetensors"]
while queue:
    name = queue.pop().lower().replace("_", "-")
    if name in wanted:
        continue
    wanted.add(name)
    try:
        requirements = [Requirement(text) for text in metadata.requires(name) or []]
    except metadata.PackageNotFoundError:
        continue
    queue += [r.name for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
forbidden = {
    top
    for top, distributions in metadata.packages_distributions().items()
    if not wanted & {name.lower().replace("_", "-") for name in distributions}
} - {"trainer", "packaging"}
assert {"ray", "mlflow", "optuna", "scipy", "timm", "torchvision"} <= forbidden

class Only:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in forbidden else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Only(finder) for finder in sys.meta_path]
sys.argv = ["trainer", *sys.argv[1:]]
from trainer.cli import main

try:
    main()
finally:
    assert not forbidden & {name.partition(".")[0] for name in sys.modules}, "imported all the same"
"""


@pytest.mark.slow
def test_training_needs_torch_and_seven_small_packages(written: Make, scenes_cache: Path, tmp_path: Path) -> None:
    """Ray, MLflow, Optuna and all else that is installed beside them is made to look absent."""
    done = subprocess.run(
        [sys.executable, "-c", ALONE, "fit", str(written({"csf": {}, "pea_ea": {}})), "--out", str(tmp_path / "run")],
        cwd=REPOSITORY,
        env={**os.environ, "TRANSKD_CACHE": str(scenes_cache)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "result.json").exists()
