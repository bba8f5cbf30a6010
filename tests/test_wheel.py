"""The wheel alone is enough: built, installed beside nothing of the checkout, and asked for a plan from elsewhere."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("ablations", "cluster", "orchestrator", "trainer")

pytestmark = pytest.mark.slow


def called(*command, cwd, hidden=("PYTHONPATH", "TRANSKD_STORE", "TRANSKD_CACHE")):
    """The output of a command that must succeed and does not see these variables."""
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy so that the checkout gets no build folder; nothing is downloaded."""
    if not (ROOT / "pyproject.toml").exists():
        pytest.skip("the packages are installed, not a checkout")
    folder = tmp_path_factory.mktemp("source")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / file).exists():
            shutil.copy(ROOT / file, folder)
    called(sys.executable, "-m", "build", "--wheel", "--no-isolation", folder, cwd=folder, hidden=())
    (built,) = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The `bin` of a new environment that has the wheel and sees the libraries of this one, but not our packages."""
    home = tmp_path_factory.mktemp("environment")
    called(sys.executable, "-m", "venv", "--without-pip", home, cwd=home)
    (site,) = home.glob("lib/python*/site-packages")
    libraries = Path(sysconfig.get_path("purelib"))
    # The libraries one by one: a .pth to their folder would bring the editable install of the checkout with it.
    for entry in libraries.iterdir():
        if "transkd" not in entry.name and entry.suffix != ".pth" and not (site / entry.name).exists():
            (site / entry.name).symlink_to(entry)
    command = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check")
    called(home / "bin" / "python", *command, wheel, cwd=home)
    return home / "bin"


def test_the_wheel_holds_the_packages_their_files_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == expected
    assert {"ablations/studies/demo.yaml", "cluster/gpu.yaml", "cluster/slurm.sh", "cluster/Dockerfile"} <= names


def test_a_plan_and_a_lint_from_another_folder(installed, tmp_path):
    where = "import orchestrator, ablations, sys; print(orchestrator.__file__); print(*sys.path)"
    found = called(installed / "python", "-c", where, cwd=tmp_path)
    assert str(ROOT) + "/orchestrator" not in found
    assert str(installed.parent) in found.splitlines()[0]
    assert str(ROOT) not in found.splitlines()[1].split()
    listing = called(installed / "transkd", "plan", "demo", "--no-probe", "--store", tmp_path / "store", cwd=tmp_path)
    assert "TransKD-EA" in listing and "params (M)" in listing
    # A spec of the package that is clean on any machine, for it speaks of others.
    assert called(installed / "transkd", "cluster", "lint", "kuberay", cwd=tmp_path) == "nothing to mend\n"
