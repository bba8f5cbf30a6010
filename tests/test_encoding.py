"""Every text is UTF-8 in any locale: each call that opens a text names its encoding, and a plan in ASCII works."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(
    file for name in ("trainer", "ablations", "cluster", "orchestrator") for file in (ROOT / name).rglob("*.py")
)
OURS = ("read_text", "write_text", "run_folder.write_text", "dist.read_text")
"""Our own functions, which name it themselves, and that of a package's metadata, which is UTF-8."""
STUDY = """\
name: tiny
base: {data: {name: scenes, size: [64, 128], options: {train: 8, val: 4, size: [64, 128]}},
       student: {name: segformer_tiny}, optim: {epochs: 1, global_batch: 4}}
variants: {größe: {}, 模型: {optim.lr: 2.0e-3}}
"""


def without_encoding(tree):
    """Lines of calls that read or write text in the locale's encoding."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func).split(".")[-1]
        named = {keyword.arg for keyword in call.keywords}
        words = [word.value for word in call.args if isinstance(word, ast.Constant) and isinstance(word.value, str)]
        modes = [word for word in words if set(word) <= set("rwax+bt")]
        function = ast.unparse(call.func)
        opens = name in ("open", "fdopen", "NamedTemporaryFile") and any("b" not in mode for mode in modes)
        opens |= name in ("read_text", "write_text") and function not in OURS
        opens |= function.startswith("subprocess.") and bool(named & {"text", "universal_newlines"})
        if opens and "encoding" not in named:
            yield call.lineno


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_text_is_opened_with_its_encoding(file):
    assert not list(without_encoding(ast.parse(file.read_text(encoding="utf-8"))))


@pytest.mark.slow
def test_a_plan_in_an_ascii_locale(tmp_path):
    """Names, paths and output: the process starts again in UTF-8 mode."""
    folder = tmp_path / "größe"
    folder.mkdir()
    (folder / "模型.yaml").write_bytes(STUDY.encode("utf-8-sig"))
    strange = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", "plan", folder / "模型.yaml", "--no-probe", "--store", folder / "store"],
        env={**os.environ, **strange},
        capture_output=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert "größe" in done.stdout.decode() and "模型" in done.stdout.decode()
