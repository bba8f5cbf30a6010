"""Mutation testing: of how many small mistakes in the statistics and in the store the tests take notice.

    pip install --target /tmp/mutmut -c constraints.txt mutmut==3.8.1
    PYTHONPATH=/tmp/mutmut python benchmarks/mutation.py statistics --sample 600

The last commit is copied, mutmut changes one expression at a time in the copy, and of the tests those that reach the
changed function are run. What is printed is the count by file and the mistakes that no test noticed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple


class Target(NamedTuple):
    """What is changed, which tests are to notice, and which of them are left out because they take long."""

    files: list[str]
    tests: list[str]
    slow: str
    first: str
    """Any mutant by its name: mutmut makes all of them before it tries this one."""


STORE = "tests/orchestrator/store"
TARGETS = {
    "statistics": Target(
        ["ablations/statistics/*.py"],
        ["tests/ablations"],
        "five_percent or wheel",
        "ablations.statistics.pareto.x_front__mutmut_1",
    ),
    "store": Target(
        [
            f"orchestrator/store/{name}.py"
            for name in ["journal", "ledger", "run_folder", "folder", "provenance", "full_disk"]
        ],
        [f"{STORE}/test_{name}.py" for name in ["journal_machine", "ledger", "run_folder", "folder", "full_disk"]],
        "eight_processes or thousand or killed_writer",
        "orchestrator.store.journal.x__line__mutmut_1",
    ),
}
SURVIVED, UNTESTED = 0, 33
"""Exit codes that mutmut keeps of a mutant; the rest are timeouts and the like, which count as noticed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--sample", type=int, help="try so many mutants, drawn with seed 0; default: all of them")
    parser.add_argument("--names", nargs="+", default=[], help="try these")
    asked = parser.parse_args()
    target = TARGETS[asked.target]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        prepare(copy, target)
        mutmut(copy, "run", "--max-children", "1", target.first)
        names = sorted(results(copy))
        tried = asked.names or (random.Random(0).sample(names, asked.sample) if asked.sample else names)
        mutmut(copy, "run", "--max-children", "1", *tried)
        report(copy, {name: code for name, code in results(copy).items() if name in set(tried)})


def prepare(copy: Path, target: Target) -> None:
    """A copy of the last commit, with mutmut's settings in its pyproject.toml."""
    archive = copy / "head.tar"
    subprocess.run(["git", "archive", "-o", archive, "HEAD"], check=True, cwd=Path(__file__).parents[1])
    with tarfile.open(archive) as file:
        file.extractall(copy, filter="data")
    chosen = ["-p", "no:cacheprovider", "--hypothesis-profile=mutation", "-k", f"not ({target.slow})"]
    with (copy / "pyproject.toml").open("a") as file:
        file.write(
            f'\n[tool.mutmut]\nsource_paths = ["ablations", "cluster", "orchestrator", "trainer"]\n'
            f"only_mutate = {json.dumps(target.files)}\npytest_add_cli_args = {json.dumps(chosen)}\n"
            f"pytest_add_cli_args_test_selection = {json.dumps(target.tests)}\n"
            "timeout_multiplier = 2.0\ntimeout_constant = 5.0\n"  # of the time that the same tests take
        )


def mutmut(copy: Path, *words: str) -> str:
    """Run mutmut in the copy; what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "mutmut", *words], cwd=copy, env=os.environ, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-2000:])
    return done.stdout


def results(copy: Path) -> dict[str, int | None]:
    """The exit code of each mutant by its name; None for those that were not tried."""
    found: dict[str, int | None] = {}
    for file in copy.glob("mutants/**/*.meta"):
        found |= json.loads(file.read_text())["exit_code_by_key"]
    return found


def report(copy: Path, codes: dict[str, int | None]) -> None:
    """Print the counts by file, and what changed in each mutant that no test noticed."""
    tried = Counter(name.rpartition(".")[0].rpartition(".")[2] for name in codes)
    left = {name for name, code in codes.items() if code in (SURVIVED, UNTESTED)}
    survived = Counter(name.rpartition(".")[0].rpartition(".")[2] for name in left)
    print(f"{'file':<18}{'mutants':>8}{'killed':>8}{'survived':>10}")
    for file in sorted(tried):
        print(f"{file + '.py':<18}{tried[file]:>8}{tried[file] - survived[file]:>8}{survived[file]:>10}")
    print(f"{'all':<18}{len(codes):>8}{len(codes) - len(left):>8}{len(left):>10}")
    for name in sorted(left):
        changed = [line for line in mutmut(copy, "show", name).splitlines() if line[:1] in ("+", "-")]
        print("", name, *[line for line in changed if line[:3] not in ("+++", "---")], sep="\n")


if __name__ == "__main__":
    main()
