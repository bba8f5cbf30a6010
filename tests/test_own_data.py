"""docs/own-data.md, walked as a user would: every command, on a made tree in the layout that the page describes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from ablations.study.plan import expand
from ablations.study.schema import Study
from trainer.data import facts_of
from trainer.data.camvid import CLASSES, CamVid
from trainer.data.make import make_tree
from trainer.data.own_folder.folder_options import FolderOptions

PAGE = (Path(__file__).parents[1] / "docs" / "own-data.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    """The lines of `sh` blocks, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.S)
    return [line.split("#")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def study() -> dict:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    return yaml.safe_load(text)


def test_the_study_is_a_study_with_the_classes_of_camvid():
    runs = expand(Study.model_validate(study()))
    assert {run.arm for run in runs} == {"teacher segformer_b0", "student alone", "CSF"}
    facts = facts_of(runs[0].config.data)
    assert dict(zip(facts.classes, facts.palette, strict=True)) == CLASSES


def test_every_option_is_in_the_table():
    rows = re.findall(r"^\| (`.*?) \|", PAGE, re.M)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(FolderOptions.model_fields)


def street(root: Path) -> None:
    """CamVid's layout as a user's: photographs, and masks as colours."""
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(CLASSES)] = list(CLASSES.values())
    for seed, splits in enumerate((("train", "val"), ("", "test"))):
        made = root.parent / f"made{seed}"
        make_tree(CamVid(made, cache=root), train=16, val=4, seed=seed, size=(64, 96))
        for split, name in zip(("train", "val"), splits, strict=True):
            for path in (made / "images" / split).iterdir() if name else ():
                (root / "frames" / name).mkdir(parents=True, exist_ok=True)
                (root / "colours" / name).mkdir(parents=True, exist_ok=True)
                path.rename(root / "frames" / name / path.name)
                with Image.open(made / "labels" / split / f"{path.stem}.png") as label:
                    Image.fromarray(colours[np.asarray(label)]).save(root / "colours" / name / f"{path.stem}_L.png")


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1800)
def test_every_command_runs(tmp_path):
    street(tmp_path / "street")
    mine = study()
    mine["base"]["teacher"] = {"name": "segformer_mini", "train": {"epochs": 1}}
    mine["base"]["optim"]["epochs"] = mine["seeds"] = 1
    (tmp_path / "street.yaml").write_text(yaml.safe_dump(mine, sort_keys=False), encoding="utf-8")
    alone = {name: section for name, section in mine["base"].items() if name not in ("teacher", "distill")}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(alone), encoding="utf-8")
    places = {"TRANSKD_STORE": str(tmp_path / "store"), "TRANSKD_CACHE": str(tmp_path / "cache")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, **places}
    environment.pop("MLFLOW_TRACKING_URI", None)
    said = {}
    for command in commands():
        options = {"shell": True, "cwd": tmp_path, "env": environment, "text": True, "timeout": 900}
        done = subprocess.run(command, capture_output=True, check=False, **options)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, f"{command}\n{done.stderr}"
        said[" ".join(command.split()[1:3])] = done.stdout
    assert "test: 4 pairs, frames/test with colours/test/**/*_L.*" in said["data init"]
    assert "[0, 0, 0]" in said["data init"] and "likely ignored" in said["data init"]
    assert "no problems" in said["data check"]
    assert "test mIoU" in said["report street.yaml"]
    assert "folder test: 4 images at 96x128, " in said["eval runs/first/last.pt"]
    written = yaml.safe_load((tmp_path / "street-data.yaml").read_text(encoding="utf-8"))["data"]
    assert written["options"]["images"] == mine["base"]["data"]["options"]["images"]
    assert written["options"]["masks"] == mine["base"]["data"]["options"]["masks"]
    assert sorted(written["options"]["classes"].values()) == sorted(map(list, set(CLASSES.values())))
    assert len(list((tmp_path / "pictures" / "masks").glob("*.png"))) == 4
    assert "<figure>" in (tmp_path / "street.html").read_text(encoding="utf-8")
