"""python -m trainer as the shell starts it: its exit codes, the packages it needs; `transkd` has its verbs too."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import app as transkd

Make = Callable[..., Any]
REPOSITORY = Path(__file__).parents[3]


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


def test_transkd_has_the_verbs_too() -> None:
    ours = {command.name or command.callback.__name__ for command in transkd.registered_commands}
    assert ours >= {"fit", "eval", "predict", "export"}
    assert "data" in {group.name for group in transkd.registered_groups}
