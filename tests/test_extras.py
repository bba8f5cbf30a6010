"""The core of the wheel: what works without the extras, and what says in one line which extra it needs."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.test_layering import FILES, PACKAGES, imports
from trainer.config import UserError, missing, missing_in, require
from trainer.config.extras import EXTRAS

ROOT = Path(__file__).parents[1]
OLD = ROOT / "tests" / "stores" / "before_wings"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BROUGHT_BY = {"aiohttp": "ray", "sqlalchemy": "mlflow", "pydantic_core": "pydantic", "typing_extensions": "pydantic"}
"""Modules that come with a package that is named in pyproject.toml."""

CORE_ALONE = """
import contextlib, io, json, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

commands, absent = json.load(sys.stdin)
sys.meta_path.insert(0, Absent())
from orchestrator.cli import app, guarded
said = []
for words in commands:
    sys.argv = ["transkd", *words]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            guarded(app)
        except SystemExit as end:
            code = end.code or 0
    said.append([code, out.getvalue(), err.getvalue()])
json.dump([said, sorted({name.partition(".")[0] for name in sys.modules})], sys.stdout)
"""
"""Runs commands in one process, in which the modules of all extras cannot be imported."""


@functools.cache
def packages() -> dict[str, list[str]]:
    """Installed module -> the packages that it is of."""
    return dict(metadata.packages_distributions())


def distribution(module: str) -> str:
    """The package of an installed module, as pyproject.toml names it."""
    module = BROUGHT_BY.get(module, module)
    found = {package.lower().replace("_", "-") for package in packages()[module]}
    return module if module in found else found.pop()


def named(requirements: list[str]) -> set[str]:
    return {Requirement(text).name.lower().replace("_", "-") for text in requirements} - {"transkd"}


@pytest.mark.slow
def test_an_import_is_of_the_core_or_of_an_extra_and_each_package_is_imported() -> None:
    tops = {name.partition(".")[0] for file in FILES for name in imports(file, types_only=False)}
    ours = tops - set(PACKAGES) - sys.stdlib_module_names - {"__future__"}
    core = ours - {module for brought in EXTRAS.values() for module in brought}
    assert {distribution(module) for module in core} == named(PROJECT["dependencies"])


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_modules_of_an_extra_are_those_of_its_packages(extra: str) -> None:
    listed = PROJECT["optional-dependencies"][extra]
    assert {distribution(module) for module in EXTRAS[extra]} == named(listed)


def test_an_extra_brings_what_its_commands_need_and_dev_brings_all() -> None:
    extras = PROJECT["optional-dependencies"]
    assert all("transkd[train]" in extras[extra] for extra in ("orchestrate", "export"))
    (all_of_them,) = (Requirement(text).extras for text in extras["dev"] if text.startswith("transkd["))
    assert all_of_them | {"train"} == set(EXTRAS)


def test_what_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    require("run", "json", "yaml")
    for module in ("torch", "ray", "optuna", "wandb", "onnx"):
        monkeypatch.setitem(sys.modules, module, None)
    told = "torch, ray and optuna, not installed here; pip install 'transkd[orchestrate]'"
    assert missing("torch", "ray", "json", "optuna") == told
    with pytest.raises(UserError, match=f"^{re.escape(f'run needs {told}')}$"):
        require("run", "torch", "ray", "optuna")
    assert missing("onnx", "torch", "ray").endswith("'transkd[export,orchestrate]'")
    assert missing("torch") == "torch, not installed here; pip install 'transkd[train]'"
    assert missing("torch", "wandb").endswith("'transkd[train,wandb]'")
    assert missing_in(ModuleNotFoundError(name="ray.tune")).startswith("ray, not")
    assert missing_in(ModuleNotFoundError(name="yaml.nothing")) == missing_in(ModuleNotFoundError()) == ""


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, tuple[int, str, str]], set[str], Path]:
    """What each command said, by its first words; the modules that were imported; and the folder."""
    folder = tmp_path_factory.mktemp("core")
    with tarfile.open(OLD / "store.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    scores = [f"{arm},{seed},{70 + seed + len(arm)}" for arm in ("base", "ours+") for seed in range(3)]
    (folder / "r.csv").write_text("\n".join(["method,seed,miou", *scores]), encoding="utf-8")
    (folder / "run.yaml").write_text("student: {name: segformer_tiny}", encoding="utf-8")
    modules, sought, store = OLD / "studies" / "modules.yaml", OLD / "studies" / "sought.yaml", folder / "store"
    commands = {
        "judge": ("judge", "r.csv"),
        "report": ("report", modules, "--store", store, "--out", folder / "report"),
        "report of a search": ("report", sought, "--store", store, "--out", folder / "search"),
        "explain": ("explain", sought, "--store", store),
        "bundle": ("bundle", modules, "--store", store, "--out", folder / "modules.tar.gz"),
        "status": ("status", modules, "--store", store),
        "list": ("list", "--store", store),
        "plan": ("plan", "demo", "--store", folder / "empty"),
        "lint": ("cluster", "lint", "kuberay"),
        "lint of pods": ("cluster", "lint", ROOT / "cluster" / "kuberay.yaml"),
        "data": ("data", "make", "camvid", folder / "tiny"),
        "run": ("run", "demo", "--store", folder / "empty"),
        "plan with hours": ("plan", "demo", "--max-gpu-hours", 1, "--store", folder / "empty"),
        "sync": ("sync", modules, "--store", store),
        "ui": ("ui", "--store", store),
        "submit": ("submit", "demo"),
        "job": ("job", "status"),
        "doctor": ("doctor", "--store", folder / "empty"),
        "judge mlflow": ("judge", "--mlflow", "kd"),
        "lint of ray up": ("cluster", "lint", ROOT / "cluster" / "ray-up-aws.yaml"),
        "import": ("import", folder, "--store", folder / "empty"),
        "fit": ("fit", folder / "run.yaml", "--out", folder / "run"),
        "eval": ("eval", folder / "last.pt"),
        "predict": ("predict", folder / "last.pt", folder, "--out", folder / "masks"),
        "export": ("export", folder / "last.pt", "--out", folder / "student.onnx"),
    }
    absent = sorted({module for brought in EXTRAS.values() for module in brought})
    hidden = ("TRANSKD_STORE", "TRANSKD_CACHE", "MLFLOW_TRACKING_URI", "RAY_ADDRESS")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        [sys.executable, "-c", CORE_ALONE],
        env=kept | {"PYTHONPATH": str(ROOT), "HOME": str(folder), "COLUMNS": "200"},
        cwd=folder,
        input=json.dumps([[list(map(str, command)) for command in commands.values()], absent]),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said, imported = json.loads(done.stdout)
    return {name: tuple(each) for name, each in zip(commands, said, strict=True)}, set(imported), folder


CORE = "judge", "report", "report of a search", "explain", "bundle", "status", "list", "plan", "lint", "lint of pods"
NEEDS = {
    "run": "run needs torch, ray, optuna and mlflow, ORCHESTRATE",
    "plan with hours": "plan --max-gpu-hours needs torch, TRAIN",
    "sync": "this command needs optuna, ORCHESTRATE",
    "ui": "ui needs mlflow, ORCHESTRATE",
    "submit": "submit needs ray, ORCHESTRATE",
    "job": "this command needs ray, ORCHESTRATE",
    "doctor": "doctor needs torch, ray, mlflow and optuna, ORCHESTRATE",
    "judge mlflow": "judge --mlflow needs mlflow, ORCHESTRATE",
    "lint of ray up": "checking a `ray up` file needs ray, ORCHESTRATE",
    "import": "this command needs torch, TRAIN",
    "data": "this command needs torch, TRAIN",
    "fit": "fit needs torch, TRAIN",
    "eval": "this command needs torch, TRAIN",
    "predict": "this command needs torch, TRAIN",
    "export": "export needs torch, onnx, onnxruntime and onnxscript, EXPORT",
}


@pytest.mark.slow
@pytest.mark.parametrize("command", CORE)
def test_the_core_alone_is_enough_for(command: str, core) -> None:
    code, _, errors = core[0][command]
    assert code == 0, errors


@pytest.mark.slow
@pytest.mark.parametrize("command", NEEDS)
def test_an_extra_that_is_not_installed_is_named_in_one_line_by(command: str, core) -> None:
    said, _, folder = core
    told = re.sub(
        r"([A-Z]{5,})$", lambda at: f"not installed here; pip install 'transkd[{at[1].lower()}]'", NEEDS[command]
    )
    assert said[command] == (2, "", f"error: {told}\n")
    written = {path.name for path in folder.iterdir()} - {"r.csv", "run.yaml", "store"}
    assert written == {"r-judged", "report", "search", "modules.tar.gz"}


@pytest.mark.slow
def test_what_the_core_does_not_compute_it_says(core) -> None:
    said = core[0]
    listed = said["plan"][1]
    assert "TransKD-EA" in listed and "micro_batch may be" in listed
    assert "not checked: structures, GMACs, limits, search space, time and cost: that needs torch, not" in listed
    assert "Importance is not computed: that needs optuna, not installed here" in said["explain"][1]


@pytest.mark.slow
def test_the_core_imports_the_packages_that_it_depends_on(core) -> None:
    used = {distribution(name) for name in core[1] if name in packages()}
    beside = {"obstore", "pandas"}  # of a store at an address, and of frames for Python
    assert named(PROJECT["dependencies"]) - beside <= used
