"""What is read from a shared store, from the web or from other users runs no code: nothing of it is unpickled."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("ablations", "cluster", "orchestrator", "trainer")
ALLOWED = {"orchestrator/running/ray_failures.py": ["pickle.load"]}
"""Ray's error of a trial, which Tune has written on the driver's own disk: only a file of the own user is read."""
MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "ray.cloudpickle"}
READS = {"load", "loads", "Unpickler", "open", "unsafe_load", "unsafe_load_all", "full_load", "full_load_all"}


def safe(call: ast.Call, name: str) -> bool:
    """Whether a call that may read pickles is told not to."""
    given = {word.arg: ast.unparse(word.value) for word in call.keywords}
    module, _, function = name.rpartition(".")
    if name in ("torch.load", "torch.jit.load", "torch.package.PackageImporter"):
        return name == "torch.load" and given.get("weights_only") == "True"
    if name in ("np.load", "numpy.load"):
        return given.get("allow_pickle", "False") == "False"
    if name in ("yaml.load", "yaml.load_all"):
        loader = given.get("Loader") or ast.unparse(call.args[1]) if len(call.args) > 1 or "Loader" in given else ""
        return "Safe" in loader or loader == "loader"  # of yaml_text.py, which derives its own from SafeLoader
    if function == "read_pickle":
        return False
    return module not in MODULES | {"yaml"} or function not in READS


def unsafe(tree: ast.Module) -> Iterator[str]:
    """The calls in a file that could run what they read."""
    known = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        if isinstance(node, ast.Import):
            known |= {alias.asname: alias.name for alias in node.names if alias.asname}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            first, dot, rest = ast.unparse(node.func).partition(".")
            name = f"{known.get(first, first)}{dot}{rest}"
            if not safe(node, name):
                yield name


@pytest.mark.parametrize(
    "line",
    [
        "import pickle\npickle.loads(b'')",
        "from pickle import load as read\nread(file)",
        "import ray.cloudpickle\nray.cloudpickle.load(file)",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import yaml\nyaml.load(text, yaml.Loader)",
        "import yaml\nyaml.load(text, Loader=yaml.UnsafeLoader)",
        "import yaml\nyaml.full_load(text)",
        "import pandas as pd\npd.read_pickle(path)",
        "import joblib\njoblib.load(path)",
    ],
)
def test_the_search_sees_what_unpickles(line: str) -> None:
    assert len(list(unsafe(ast.parse(line)))) == 1


@pytest.mark.slow
def test_nothing_that_is_read_is_unpickled() -> None:
    files = {
        file: ast.parse(file.read_text(encoding="utf-8")) for name in PACKAGES for file in (ROOT / name).rglob("*.py")
    }
    found = {str(file.relative_to(ROOT)): calls for file, tree in files.items() if (calls := list(unsafe(tree)))}
    assert found == ALLOWED
