"""docs/notebook.ipynb, run cell by cell; as a program, this file writes the outputs into the notebook."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


def executed(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with the outputs of its cells: what they print, and their last expression as Jupyter shows it."""
    names: dict[str, Any] = {"__name__": "__main__"}
    count = 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            count += 1
            cell |= {"execution_count": count, "outputs": run("".join(cell["source"]), names, count)}
    return notebook


def run(source: str, names: dict[str, Any], count: int) -> list[dict[str, Any]]:
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(tree, f"cell {count}", "exec"), names)
        value = eval(compile(ast.Expression(last.value), f"cell {count}", "eval"), names) if last else None
    outputs: list[dict[str, Any]] = []
    if text := printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)})
    if value is not None:
        data = {"text/plain": repr(value).splitlines(keepends=True)}
        if hasattr(value, "_repr_html_"):
            data["text/html"] = value._repr_html_().splitlines(keepends=True)
        outputs.append({"output_type": "execute_result", "execution_count": count, "metadata": {}, "data": data})
    return outputs


def outputs_of(notebook: dict[str, Any]) -> list[str]:
    return [json.dumps(cell["outputs"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


@pytest.mark.slow
@pytest.mark.ray
def test_the_notebook_runs_and_its_verdicts_are_those_it_shows(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TRANSKD_CACHE": str(tmp_path / "cache")}
    program = (sys.executable, __file__, str(tmp_path / "again.ipynb"))
    done = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    again = outputs_of(json.loads((tmp_path / "again.ipynb").read_text(encoding="utf-8")))
    shown = outputs_of(json.loads(NOTEBOOK.read_text(encoding="utf-8")))
    assert shown[:3] == again[:3] and "better" in shown[0] and "n too small" in shown[2]
    assert all(bool(one) == bool(other) for one, other in zip(shown, again, strict=True))
    assert "undecided" in again[4] and "student alone" in again[4] and "finished" in again[5]


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else NOTEBOOK
    made = executed(json.loads(NOTEBOOK.read_text(encoding="utf-8")))
    target.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
