"""`ray job submit --working-dir .` ships the program and nothing heavy, by Ray's own packaging."""

import logging
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

import cluster

ROOT = Path(cluster.__file__).parent.parent
PACKAGES = ("ablations", "cluster", "orchestrator", "trainer")


def package(folder, target):
    """Names and total bytes of what a job submitted from `folder` would upload."""
    from ray._private.runtime_env.packaging import create_package
    from ray._private.runtime_env.working_dir import upload_working_dir_if_needed

    def upload(working_dir, excludes, is_file=False):
        create_package(working_dir, target, include_gitignore=True, excludes=excludes, logger=logging.getLogger("test"))

    upload_working_dir_if_needed({"working_dir": str(folder)}, include_gitignore=True, upload_fn=upload)
    with zipfile.ZipFile(target) as archive:
        return set(archive.namelist()), sum(item.file_size for item in archive.infolist())


@pytest.fixture
def checkout(tmp_path):
    """A copy of the program with what a used checkout also has: a repository, an environment, caches."""
    if not (ROOT / "pyproject.toml").exists():
        pytest.skip("the packages are installed, not a checkout")
    folder = tmp_path / "checkout"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", ".gitignore"):
        shutil.copy(ROOT / name, folder / name)
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    for name in (
        ".git/objects/heavy",
        ".venv/lib/heavy",
        "trainer/__pycache__/heavy.pyc",
        "mlruns/heavy",
        "dist/heavy",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes(5 * 2**20))
    return folder


def test_the_package_holds_the_program_and_nothing_heavy(checkout, tmp_path):
    names, size = package(checkout, tmp_path / "package.zip")
    assert {f"{name}/__init__.py" for name in PACKAGES} <= names
    assert {"cluster/aws.yaml", "cluster/Dockerfile", "pyproject.toml"} <= names
    assert not {name for name in names if "heavy" in name or name.startswith((".git/", ".venv/"))}
    assert size < 5 * 2**20


def test_a_data_folder_left_in_the_checkout_would_be_seen(checkout, tmp_path):
    (checkout / "data").mkdir()
    (checkout / "data" / "heavy").write_bytes(bytes(5 * 2**20))
    names, size = package(checkout, tmp_path / "package.zip")
    assert "data/heavy" in names
    assert size > 5 * 2**20
