"""Matrix: golden numbers, tests and studies under Ray with the oldest and the newest PyTorch, Ray and MLflow.

The corners may lie beyond the ranges of pyproject.toml, which allow what passed here. Each gets an environment of its
own, which is deleted afterwards: 6 GB, most of it links into uv's cache. What is not named below has the version of
constraints.txt.
Run: make matrix, or python benchmarks/matrix.py --only oldest. It needs uv (pip install uv) and the corners' Pythons.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml
from bench import hardware, write

HERE = Path(__file__).parent
ROOT = HERE.parent
HEADING = "## Versions (`make matrix`)"
LIMIT_S = 1200.0
"""Longest time of one check."""


class Corner(NamedTuple):
    """The versions that are tried together."""

    python: str
    torch: str
    torchvision: str
    ray: str
    mlflow: str


CORNERS = {
    "oldest": Corner("3.11", "2.11.0", "0.26.0", "2.56.1", "3.17.0"),
    "middle": Corner("3.12", "2.12.1", "0.27.1", "2.58.1", "3.17.2"),
    "newest": Corner("3.13", "2.14.1", "0.29.1", "2.60.0", "3.17.2"),
    "next MLflow": Corner("3.11", "2.12.1", "0.27.1", "2.60.0", "3.18.0"),
}
FOLLOWING = re.compile(r"(torch|torchvision|ray|mlflow|mlflow-\w+|nvidia-(?!ml-py)[\w-]+|cuda-[\w-]+|triton)==")
"""Packages of constraints.txt whose versions follow from those of a corner."""

PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider")
GOLDEN = (
    "models/test_golden.py",
    "distill/test_golden.py",
    "training/test_golden_step.py",
    "training/test_golden_curve.py",
)
FAST = (
    "cluster",
    "trainer/losses",
    "trainer/models",
    "orchestrator/running",
    "orchestrator/search",
    "orchestrator/tracking",
)
CHECKS = {
    "golden numbers": (*PYTEST, "-m", "", *(f"tests/trainer/{name}" for name in GOLDEN)),
    "fast tests": (*PYTEST, *(f"tests/{name}" for name in FAST)),
    "a study, 2 workers a run": ("-m", "orchestrator", "run", "two_workers.yaml", "--workers", "2"),
    "a search": ("-m", "orchestrator", "run", "searched.yaml"),
}
"""Heading of a column -> what the environment's Python runs; the fast tests of what calls torch, Ray and MLflow."""

LOCKED = ("-k", "not (kuberay or raycluster or ray_job)")
"""Added to the fast tests with another Ray than that of constraints.txt, which the packaged files for KubeRay name."""

SCENES = {"name": "scenes", "size": [32, 64], "options": {"train": 8, "val": 4, "size": [32, 64]}}
OPTIM = {"lr": 1.0e-3, "epochs": 2, "global_batch": 4, "norm_batch": 2}
STUDIES = {
    "two_workers": {
        "base": {
            "data": SCENES,
            "student": {"name": "segformer_tiny"},
            "teacher": {"name": "segformer_mini", "train": {"epochs": 1}},
            "optim": OPTIM,
            "distill": {"csf": {}, "pea": {}},
        },
        "variants": {"TransKD-Base": {}},
        "seeds": 1,
    },
    "searched": {
        "base": {"data": {**SCENES, "select": 0.25}, "student": {"name": "segformer_tiny"}, "optim": OPTIM},
        "search": {
            "trials": 3,
            "sampler": "tpe",
            "stop": "asha",
            "metric": "select/miou",
            "startup": 2,
            "space": {"optim.lr": {"log": [1.0e-4, 1.0e-2]}},
        },
    },
}


def uv(*words: object) -> str:
    """What uv said where it failed; "" where it did not."""
    program = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if program is None:
        sys.exit("uv is not installed; pip install uv")
    done = subprocess.run([program, *map(str, words)], capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else ""


def locked() -> list[str]:
    """The lines of constraints.txt."""
    return (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()


def installed(corner: Corner, folder: Path) -> str:
    """Make the environment of a corner in `folder`. Why it cannot be, in a sentence; "" where it is there."""
    python, others = folder / "bin" / "python", folder / "others.txt"
    if told := uv("venv", "--quiet", "--python", corner.python, folder):
        return f"no Python: {told}"
    others.write_text("\n".join(line for line in locked() if not FOLLOWING.match(line)), encoding="utf-8")
    _, torch, torchvision, ray, mlflow = corner
    asked = [f"torch=={torch}", f"torchvision=={torchvision}", f"ray[default,train,tune]=={ray}", f"mlflow=={mlflow}"]
    (folder / "asked.txt").write_text("\n".join(asked), encoding="utf-8")
    extras = ("--extra", "orchestrate", "--extra", "export", "--extra", "tensorboard")
    beside = ("hypothesis", "pytest", "pytest-timeout")
    found = ("-r", ROOT / "pyproject.toml", *extras, "--constraint", others, "--override", folder / "asked.txt")
    return uv("pip", "install", "--quiet", "--python", python, *found, *beside)


def checked(python: Path, words: Sequence[str], folder: Path) -> str:
    """What a check came to, in few words."""
    hidden = ("MLFLOW_TRACKING_URI", "RAY_ADDRESS")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    ours = {"TRANSKD_STORE": str(folder / "store"), "TRANSKD_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    is_test, began = "pytest" in words, time.monotonic()
    try:
        done = subprocess.run(
            [str(python), *words],
            cwd=ROOT if is_test else folder,
            env=kept | ours | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"not ended in {LIMIT_S:.0f} s"
    print(done.stdout[-4000:], flush=True)
    seconds = f"{time.monotonic() - began:.0f} s"
    if not is_test:
        return f"ends, {seconds}" if done.returncode == 0 else f"**exit code {done.returncode}**"
    counts = ", ".join(re.findall(r"\d+ (?:passed|failed|errors?)", done.stdout.splitlines()[-1]))
    return f"{counts}, {seconds}" if done.returncode == 0 else f"**{counts or f'exit code {done.returncode}'}**"


def row(name: str, corner: Corner) -> str:
    """The line of a corner in the table."""
    cells = [name, *corner]
    with tempfile.TemporaryDirectory(prefix="transkd-matrix-") as temporary:
        folder = Path(temporary)
        if why := installed(corner, folder / "environment"):
            cells += [f"cannot be installed: {' '.join(why.split())}", *[""] * (len(CHECKS) - 1)]
        else:
            for study, content in STUDIES.items():
                text = yaml.safe_dump({"name": study, **content}, sort_keys=False)
                (folder / f"{study}.yaml").write_text(text, encoding="utf-8")
            for check, words in CHECKS.items():
                only = LOCKED if check == "fast tests" and f"ray=={corner.ray}" not in locked() else ()
                cells.append(checked(folder / "environment" / "bin" / "python", (*words, *only), folder))
    return f"| {' | '.join(cells)} |"


def lines_of(names: Sequence[str]) -> Iterator[str]:
    """The lines of the table, each when it is known."""
    headings = ["corner", "Python", "torch", "torchvision", "Ray", "MLflow", *CHECKS]
    yield f"| {' | '.join(headings)} |"
    yield f"|{' --- |' * len(headings)}"
    for name in names:
        yield row(name, CORNERS[name])


def main() -> None:
    """Try the corners, print the table, and write it if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    either = parser.add_mutually_exclusive_group()  # the section is written whole
    either.add_argument("--only", nargs="+", choices=CORNERS, default=list(CORNERS))
    either.add_argument("--write", action="store_true", help="write benchmarks/RESULTS.md")
    asked = parser.parse_args()
    lines = []
    for line in lines_of(asked.only):
        print(line, flush=True)
        lines.append(line)
    if asked.write:
        write([hardware(), "", *lines], HERE / "RESULTS.md", HEADING)


if __name__ == "__main__":
    main()
