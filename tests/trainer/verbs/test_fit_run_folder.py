"""fit: a run's folder is of one config and one process, and what is read there is never written over."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Make = Callable[..., Any]
REPOSITORY = Path(__file__).parents[3]


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


@pytest.mark.slow
def test_another_run_in_the_folder_is_refused(written: Make, command: Make, tmp_path: Path) -> None:
    arguments = ("fit", written({}, {"optim.epochs": 1}), "--out", tmp_path / "run")
    assert command(*arguments)[0] == 0
    code, _, errors = command(*arguments, "--set", "seed=1")
    assert code == 2
    assert "choose another folder" in errors


@pytest.mark.slow
def test_a_config_in_its_own_folder_stays_as_it_is_written(recipe: Make, command: Make, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("# why\n" + yaml.safe_dump(recipe({}, {"optim.epochs": 1})))
    before = path.read_bytes()
    assert command("fit", path, "--out", tmp_path)[0] == 0
    assert path.read_bytes() == before and (tmp_path / "result.json").exists()


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
