"""Who may import whom, read from the source of every file: the four packages stay four answers."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("ablations", "cluster", "orchestrator", "trainer")
FILES = sorted(path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

ALLOWED = {
    "trainer": set(),
    "cluster": set(),
    "ablations": {"trainer.config"},
    "ablations/grid.py": {"orchestrator.cli", "orchestrator.verbs"},
    # The config, the pure files about a run's place and folder, and what the orchestrator treats as opaque.
    "orchestrator": {
        "ablations",
        "cluster",
        "trainer.config",
        "trainer.files.failure",
        "trainer.place",
        "trainer.files.run_folder",
    },
    "orchestrator/cli.py": {"trainer.cli.app", "trainer.cli.in_one_line"},
    "orchestrator/store/import_runs.py": {"trainer.files.checkpoint.load"},
    "orchestrator/prepare/jobs.py": {
        "trainer.training.build.check",
        "trainer.training.build.run_id",
        "trainer.data.check_root",
    },
    "orchestrator/running/trial.py": {"trainer.worker.train_worker"},
}
"""What a package, and beyond it a file, may import of other packages of ours; a name allows all below it."""

HOMES = {
    "ray": ("trainer/worker.py", "orchestrator/"),
    "mlflow": ("orchestrator/tracking/mlflow_server.py",),
    "optuna": (
        "orchestrator/search/optuna_dashboard.py",
        "orchestrator/search/optuna_trials.py",
        "orchestrator/search/importance.py",
        "orchestrator/search/optuna_sampling.py",
        "orchestrator/search/samplers.py",
    ),
    "torch": ("trainer/", "orchestrator/prepare/machine.py"),
}
"""Where a library may be imported."""


@functools.cache
def imports(file):
    """Dotted names that a file imports, wherever in it: `trainer.training.build.check`."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def below(name, allowed):
    return any(f"{name}.".startswith(f"{prefix}.") for prefix in allowed)


def test_all_files_are_found():
    assert {file.parts[0] for file in FILES} == set(PACKAGES)
    assert Path("trainer/worker.py") in FILES and imports("trainer/worker.py") >= {
        "ray.train",
        "trainer.training.loop.fit",
    }


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_file_imports_what_its_package_may(file):
    package = file.parts[0]
    allowed = ALLOWED[package] | ALLOWED.get(str(file), set())
    others = {name for name in imports(file) if name.split(".")[0] in PACKAGES and name.split(".")[0] != package}
    assert not {name for name in others if not below(name, allowed)}


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_library_is_imported_where_it_lives(file):
    for library, homes in HOMES.items():
        if below(library, {name.split(".")[0] for name in imports(file)}):
            assert str(file).startswith(homes), f"{library} in {file}"


def test_nothing_that_is_allowed_is_unused():
    used = {name for file in FILES for name in imports(file)}
    assert all(any(below(name, {prefix}) for name in used) for names in ALLOWED.values() for prefix in names)


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        (
            ["trainer.config", "trainer.place", "trainer.files.run_folder"],
            ("torch", "ray", "mlflow", "optuna", "numpy"),
        ),
        (["cluster.spec", "cluster.lint", "cluster.launcher"], ("torch", "ray", "mlflow", "numpy")),
        (
            [".".join(file.with_suffix("").parts) for file in FILES if file.parts[0] == "ablations"],
            ("torch", "ray", "mlflow", "optuna"),
        ),
        (
            [
                "orchestrator.cli",
                "orchestrator.terminal.plan_listing",
                "orchestrator.store.ledger",
                "orchestrator.state.progress",
            ],
            ("torch", "ray", "mlflow", "optuna"),
        ),
    ],
    ids=lambda value: value[0],
)
def test_what_answers_at_once_imports_nothing_slow(modules, absent):
    program = f"import sys, {', '.join(modules)}; print(*sorted(sys.modules.keys() & {set(absent)!r}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
