"""README's commands, run as written: only paths, and what makes a study long, are replaced."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SMALL_SCENES = {"name": "scenes", "size": [32, 64], "options": {"train": 16, "val": 8, "size": [32, 64]}}
BY_CI = {"make test": "make test", "make check": "make static"}
"""Commands that contain this test, and what of .ci/run runs them."""
A_JOB = "ray job submit"


def commands() -> list[str]:
    """The commands of README in their order: indented lines and `sh` blocks, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.S)
    indented = re.findall(r"^    (.*)$", re.sub(r"```.*?```", "", README, flags=re.S), re.M)
    lines = [*indented, *(line for block in blocks for line in block.splitlines())]
    return [line.split("#")[0].strip() for line in lines if line.strip()]


def study() -> dict:
    """README's own study."""
    (text,) = re.findall(r"```yaml\n(.*?)```", README, re.S)
    return yaml.safe_load(text)


def test_the_first_screen_shows_a_table_and_the_two_commands():
    screen = "\n".join(README.splitlines()[:40])
    assert "make demo" in screen
    assert "make test" in screen
    assert "TransKD-Base" in screen
    assert "±" in screen


@pytest.mark.parametrize(("command", "part"), BY_CI.items())
def test_ci_runs_the_commands_that_hold_this_test(command, part):
    assert any(known.startswith(command) for known in (*commands(), *re.findall(r"`(make \w+)`", README)))
    assert f"\n{part}\n" in (ROOT / ".ci" / "run").read_text()


def test_the_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_study_in_readme_is_a_study():
    from ablations.study.plan import expand
    from ablations.study.schema import Study

    arms = {run.arm for run in expand(Study.model_validate(study()))}
    assert {"both", "student alone", "both without csf", "both without pea"} <= arms


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Path:
    """A folder with what README's commands name: a study, a run, a CamVid tree; all of it small."""
    folder = tmp_path_factory.mktemp("readme")
    mine = study()
    mine["base"]["teacher"]["train"]["epochs"] = mine["base"]["optim"]["epochs"] = mine["seeds"] = 1
    mine["base"]["data"]["size"] = [32, 64]
    mine["base"]["teacher"]["name"] = "segformer_mini"
    (folder / "mine.yaml").write_text(yaml.safe_dump(mine, sort_keys=False))
    for name in ("demo", "demo_search"):
        small = yaml.safe_load((ROOT / "ablations" / "studies" / f"{name}.yaml").read_text())
        small["base"]["data"] |= SMALL_SCENES
        small["base"]["teacher"] = {"name": "segformer_mini", "train": {"epochs": 1}}
        small["base"]["optim"]["epochs"] = 2
        if "search" in small:
            small["search"]["trials"] = 3
        else:
            small["seeds"] = 1
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(small, sort_keys=False))
    run = {"student": {"name": "segformer_tiny"}, "data": SMALL_SCENES, "optim": {"lr": 1.0e-3, "global_batch": 8}}
    (folder / "run.yaml").write_text(yaml.safe_dump(run))
    scores = [f"{arm},{seed},{70 + 3 * seed % 5 + len(arm)}" for arm in ("base", "ours+") for seed in range(3)]
    (folder / "results.csv").write_text("\n".join(["method,seed,miou", *scores]), encoding="utf-8")
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 2)):
        for kind in ("images", "labels"):
            (folder / "camvid" / kind / split).mkdir(parents=True)
        for i in range(count):
            label = np.kron(rng.integers(0, 12, (3, 4), dtype=np.uint8), np.ones((12, 16), dtype=np.uint8))
            Image.fromarray(np.stack([label * 20] * 3, axis=-1)).save(folder / f"camvid/images/{split}/{i}.jpg")
            Image.fromarray(label).save(folder / f"camvid/labels/{split}/{i}.png")
    return folder


def adapted(command: str, folder: Path) -> str:
    """The command with the paths and studies of the workshop."""
    command = command.replace("/data/camvid", str(folder / "camvid")).replace("/shared/store", str(folder / "store"))
    command = re.sub(r"(transkd run) (demo\w*)", rf"\1 {folder}/\2.yaml", command)
    return re.sub(r"^make (\w+)", rf"make -C {ROOT} \1 STUDY={folder}/demo.yaml", command)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1800)
def test_every_command_runs(workshop, free_port):
    bin_folder = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "TRANSKD_STORE": str(workshop / "store"),
        "TRANSKD_CACHE": str(workshop / "cache"),
    }
    environment.pop("MLFLOW_TRACKING_URI", None)
    ran = 0
    for command in commands():
        if command.startswith((*BY_CI, A_JOB)):  # tests/orchestrator/test_grid.py submits the job
            continue
        ran += 1
        options = {"shell": True, "cwd": workshop, "env": environment, "text": True}
        if command.startswith("transkd ui"):
            serves(command, free_port(), options)
            continue
        done = subprocess.run(adapted(command, workshop), capture_output=True, timeout=900, check=False, **options)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, f"{command}\n{done.stderr}"
    assert ran >= 8


def serves(command: str, port: int, options: dict) -> None:
    """Start the page, see it answer, and end it with its children."""
    page = subprocess.Popen(f"exec {command} --port {port}", start_new_session=True, **options)
    try:
        deadline = time.monotonic() + 600
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5) as answer:
                    assert answer.status == 200
                return
            except OSError:
                assert page.poll() is None, "the page ended by itself"
                assert time.monotonic() < deadline, "the page did not answer in ten minutes"
                time.sleep(1)
    finally:
        os.killpg(page.pid, 15)
        page.wait(timeout=60)
