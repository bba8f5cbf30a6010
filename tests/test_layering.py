"""Who may import whom: docs/architecture.md says it, and the imports of every file are held against that page."""

import ast
import functools
import graphlib
import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("ablations", "cluster", "orchestrator", "trainer")
FILES = sorted(path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
PAGE = (ROOT / "docs" / "architecture.md").read_text()
GUIDES = ("CONTRIBUTING.md", "docs/architecture.md")
TOPS = {path.name for path in ROOT.iterdir()}
"""What a path of this repository begins with."""


def module(file):
    """`trainer.config` of trainer/config/__init__.py."""
    return ".".join(file.with_suffix("").parts).removesuffix(".__init__")


MODULES = {module(file): file for file in FILES}


def table(heading):
    """The rows of the first table from a heading of the page on, as the text of their cells."""
    lines = itertools.dropwhile(lambda line: not line.startswith("|"), PAGE[PAGE.index(heading) :].splitlines())
    _, _, *rows = itertools.takewhile(lambda line: line.startswith("|"), lines)
    return [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in rows]


def names(cell):
    return [name.strip() for name in cell.split(",") if name.strip()]


UNITS = {
    package: {unit.rstrip("/"): names(imports) for unit, _, imports in table(f"### {package}: ")}
    for package in PACKAGES
}
"""Package -> unit -> the units it imports, in the order of the page, the lowest unit first."""
ALLOWED = {importer: names(imports) for importer, imports in table("### Between packages")}
"""What a package, and beyond it a file, may import of other packages; a name allows all below it."""
HOMES = {library: names(homes) for library, homes in table("| library | imported only in |")}
"""Where a library may be imported."""


def statements(node, types_only=True):
    """The import statements below a node, wherever they stand; those of `if TYPE_CHECKING:` with `types_only`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING") and not types_only:
            child = ast.Module(child.orelse, [])
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        yield from statements(child, types_only)


def imported(source, types_only=True):
    """Dotted names that a source imports: `trainer.training.build.check`."""
    found = set()
    for node in statements(ast.parse(source), types_only):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        else:
            assert node.level == 0, "imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@functools.cache
def imports(file, types_only=True):
    return imported((ROOT / file).read_text(), types_only)


def below(name, allowed):
    return any(f"{name}.".startswith(f"{prefix}.") for prefix in allowed)


def files_of(found):
    """The files of ours that dotted names come from."""
    for name in found:
        parts = name.split(".")
        prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
        if (known := next((MODULES[prefix] for prefix in prefixes if prefix in MODULES), None)) is not None:
            yield known


def unit(file):
    """(package, unit) of a file: ("trainer", "config"), ("trainer", "rng.py")."""
    return file.parts[0], file.parts[1]


def arrows():
    """Package -> the pairs of units, importer first, between which files of that package import."""
    found = {package: set() for package in PACKAGES}
    for file in FILES:
        package, importer = unit(file)
        if importer == "__init__.py":  # a package's interface is above all of its units
            continue
        others = {unit(other) for other in files_of(imports(file))}
        found[package] |= {(importer, name) for home, name in others if home == package and name != importer}
    return found


def test_all_files_are_found():
    assert {file.parts[0] for file in FILES} == set(PACKAGES)
    assert Path("trainer/worker.py") in FILES and imports("trainer/worker.py") >= {
        "ray.train",
        "trainer.training.loop.fit_together",
    }


def test_an_import_is_seen_wherever_it_stands():
    source = """
import trainer.rng
if TYPE_CHECKING:
    from cluster.spec import ClusterSpec
def f():
    try:
        from trainer.config import parse
    finally:
        import ray
"""
    assert imported(source) == {"trainer.rng", "cluster.spec.ClusterSpec", "trainer.config.parse", "ray"}
    assert imported(source, types_only=False) == {"trainer.rng", "trainer.config.parse", "ray"}
    assert set(files_of(imported(source))) == {Path(f) for f in ("trainer/rng.py", "trainer/config/__init__.py")} | {
        Path("cluster/spec.py")
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_the_page_has_every_unit_and_no_other(package):
    assert set(UNITS[package]) == {unit(file)[1] for file in FILES if file.parts[0] == package} - {"__init__.py"}


@pytest.mark.parametrize("package", PACKAGES)
def test_an_import_goes_down_in_the_order_of_the_page(package):
    order = list(UNITS[package])
    upward = {(one, other) for one, others in UNITS[package].items() for other in others} - {
        (one, other) for i, one in enumerate(order) for other in order[:i]
    }
    assert not upward


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
def test_units_import_what_the_page_says_and_no_less(package):
    drawn = {(one, other) for one, others in UNITS[package].items() for other in others}
    found = arrows()[package]
    assert sorted(found - drawn) == [], "imported, but not on the page"
    assert sorted(drawn - found) == [], "on the page, but no file imports it"


def test_no_files_import_each_other_in_a_circle():
    graph = {file: set(files_of(imports(file, types_only=False))) - {file} for file in FILES}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_itself_imports_nothing_of_ours_before_it_is_used(package):
    program = f"import sys, {package}; print(*(name for name in sys.modules if name.partition('.')[0] in {PACKAGES}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    # the folder `report`, whose name a function of the interface takes, is bound before that function
    assert set(done.stdout.split()) <= {package, "orchestrator.report"}


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_file_imports_what_its_package_may(file):
    package = file.parts[0]
    allowed = {*ALLOWED.get(package, ()), *ALLOWED.get(str(file), ())}
    others = {name for name in imports(file) if name.split(".")[0] in PACKAGES and name.split(".")[0] != package}
    assert not {name for name in others if not below(name, allowed)}


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_library_is_imported_where_it_lives(file):
    for library, homes in HOMES.items():
        if below(library, {name.split(".")[0] for name in imports(file)}):
            assert str(file).startswith(tuple(homes)), f"{library} in {file}"


@pytest.mark.slow
def test_nothing_that_is_allowed_is_unused():
    for importer, allowed in ALLOWED.items():
        used = {name for file in FILES if file.is_relative_to(importer) for name in imports(file)}
        assert not {prefix for prefix in allowed if not any(below(name, {prefix}) for name in used)}, importer
    for library, homes in HOMES.items():
        using = {str(file) for file in FILES if below(library, {name.split(".")[0] for name in imports(file)})}
        assert not {home for home in homes if not any(file.startswith(home) for file in using)}, library


def test_every_folder_is_packaged():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert listed == sorted(module(file) for file in FILES if file.name == "__init__.py")
    assert {file.parent for file in FILES} == {file.parent for file in FILES if file.name == "__init__.py"}


@pytest.mark.parametrize("guide", GUIDES)
def test_the_files_and_names_of_a_guide_are_there(guide):
    found = 0
    for path, name in re.findall(r"`([\w./-]+)(?::(\w+))?`", (ROOT / guide).read_text()):
        a_path = "/" in path.rstrip("/") and (path.endswith("/") or Path(path).suffix)
        if path.split("/")[0] not in TOPS and not a_path:
            continue  # a unit, a metric, or a file of a run
        found += 1
        assert (ROOT / path).exists(), path
        if name:
            tree = ast.parse((ROOT / path).read_text())
            assigned = {t.id for t in ast.walk(tree) if isinstance(t, ast.Name) and isinstance(t.ctx, ast.Store)}
            defined = {d.name for d in ast.walk(tree) if isinstance(d, ast.FunctionDef | ast.ClassDef)}
            assert name in assigned | defined, f"{path} does not define {name}"
    assert found > 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        (
            ["trainer.config", "trainer.place", "trainer.files.run_folder"],
            ("torch", "ray", "mlflow", "optuna", "numpy"),
        ),
        (["cluster.spec", "cluster.lint", "cluster.launchers.lint_launcher"], ("torch", "ray", "mlflow", "numpy")),
        (
            [module(file) for file in FILES if file.parts[0] == "ablations"],
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
