"""Ours are imported whatever stands in their way: working directory, PYTHONPATH, another distribution."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import ray.cloudpickle
import yaml

from orchestrator import packages
from orchestrator.packages import PACKAGES, Finder, digest

ROOT = Path(__file__).parents[2]
OURS = ("trainer", "cluster/__init__", "ablations/__init__")


def python(*words, cwd, given=None, **env):
    return subprocess.run(
        [sys.executable, *map(str, words)], input=given, cwd=cwd, env=env, capture_output=True, check=False
    )


@pytest.mark.slow
def test_the_driver_imports_its_own_packages(in_the_way, tmp_path):
    way = in_the_way(tmp_path / "way", *OURS)
    done = python("-m", "orchestrator", "plan", "no_such_study", cwd=way, PYTHONPATH=f"{way}:{ROOT}")
    assert (done.returncode, b"error: " in done.stderr, b"Traceback" in done.stderr) == (2, True, False), done.stderr


@pytest.mark.slow
def test_a_worker_imports_what_the_driver_imported(in_the_way, tmp_path):
    """Under Ray: tests/orchestrator/running/test_workers.py."""
    way = in_the_way(tmp_path / "way", *OURS, "yaml", "random")
    program = (
        "import pickle, sys; pickle.load(sys.stdin.buffer)(); sys.path.insert(0, sys.argv[1]); "
        "import ablations, cluster, orchestrator, random, trainer, yaml; "
        "print(*(m.__file__ for m in (ablations, cluster, orchestrator, trainer, yaml)), sep='\\n')"
    )
    ray.cloudpickle.register_pickle_by_value(packages)
    try:
        given = ray.cloudpickle.dumps(packages.as_here())
    finally:
        ray.cloudpickle.unregister_pickle_by_value(packages)
    done = python("-P", "-c", program, way, cwd=way, given=given, PYTHONPATH=str(way.parent))
    expected = [*(f"{ROOT / name}/__init__.py" for name in PACKAGES), yaml.__file__]
    assert sorted(done.stdout.decode().split()) == sorted(expected), done.stderr


def test_where_the_drivers_folder_is_not_there_an_equal_copy_is_taken_and_another_is_named(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "cluster", tmp_path / "cluster", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.syspath_prepend(tmp_path)
    finder = Finder("/no/such/folder", digests={"cluster": digest(ROOT / "cluster")})
    assert finder.find_spec("cluster").origin in (f"{tmp_path}/cluster/__init__.py", f"{ROOT}/cluster/__init__.py")
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if not isinstance(finder, Finder)])
    assert finder.find_spec("cluster").origin == f"{tmp_path}/cluster/__init__.py"
    (tmp_path / "cluster" / "spec.py").write_text("# another version\n")
    with pytest.raises(
        ImportError, match=f"{tmp_path}/cluster/__init__.py stands where the driver has /no/such/folder"
    ):
        finder.find_spec("cluster")
