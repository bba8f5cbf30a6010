"""`ablations/grid.py`: by hand, and as a submitted job whose folder is an unpacked copy; exit codes come back."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ablations import grid
from orchestrator.store.ledger import Ledger
from trainer.config import UserError

ROOT = Path(__file__).parents[2]
PACKAGES = ("ablations", "cluster", "orchestrator", "trainer")

STUDY = """
name: NAME
base:
  data: {name: scenes, size: [64, 128], options: {train: 16, val: 8, size: [64, 128]}}
  student: {name: segformer_tiny}
  optim: {lr: 1.0e-3, epochs: 1, global_batch: 8}
variants: {one: {}, other: {optim.lr: RATE}}
"""

OWN = """
name: own
plugins: [my_kd.py, my_net.py]
base:
  data: {name: scenes, size: [64, 128], options: {train: 16, val: 8, size: [64, 128]}}
  student: {name: small_net}
  teacher: {name: segformer_tiny, train: {epochs: 1}}
  optim: {lr: 1.0e-3, epochs: 1, global_batch: 8}
variants: {own: {distill: {mean_gap: {}}}}
"""


@pytest.fixture
def checkout(checkout, own):
    """The program with three studies: one ends, one has an arm that fails, one has plugins."""
    folder = checkout
    (folder / "good.yaml").write_text(STUDY.replace("NAME", "good").replace("RATE", "3.0e-3"))
    (folder / "bad.yaml").write_text(STUDY.replace("NAME", "bad").replace("RATE", "1.0e+9"))
    (folder / "own.yaml").write_text(OWN)
    for name in ("my_kd.py", "my_net.py"):
        shutil.copy(own / name, folder)
    return folder


def finished(store):
    events = [event for _, event in Ledger(store / "ledger.jsonl").whole()]
    return sorted((event["study"], event["arm"]) for event in events if event["event"] == "finished")


@pytest.mark.slow
@pytest.mark.ray
def test_a_job_runs_a_study_in_an_unpacked_folder_and_its_exit_code_comes_back(head, checkout, surroundings, tmp_path):
    store = tmp_path / "store"

    def submit(*words):
        command = [
            sys.executable,
            "-m",
            "ray.scripts.scripts",
            "job",
            "submit",
            "--address",
            head,
            "--working-dir",
            ".",
        ]
        command += ["--", sys.executable, "ablations/grid.py", *words, "--store", str(store)]
        return subprocess.run(
            command, cwd=checkout, env=surroundings, capture_output=True, text=True, timeout=500, check=False
        )

    done = submit("good.yaml", "bad.yaml", "own.yaml")
    assert done.returncode == 1, done.stdout + done.stderr
    # `one` of `bad` is the same run as `one` of `good`: it is reused.
    # the teacher of `own` is `one` of `good` too
    assert finished(store) == [("good", "one"), ("good", "other"), ("own", "own")]
    assert "failed: 1 of 2 runs, the first other seed 0: nan: loss/ce is not finite" in done.stdout
    done = submit("good.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "good: 2 runs, 0 to do" in done.stdout
    assert len(finished(store)) == 3
    assert not (checkout / "ray").exists()


@pytest.mark.slow
@pytest.mark.ray
def test_by_hand_from_another_folder_it_starts_a_ray_of_its_own(checkout, surroundings, tmp_path):
    command = [sys.executable, str(checkout / "ablations" / "grid.py"), str(checkout / "good.yaml")]
    done = subprocess.run(
        [*command, "--store", str(tmp_path / "store")],
        cwd=tmp_path,
        env=surroundings,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert finished(tmp_path / "store") == [("good", "one"), ("good", "other")]


def test_every_study_of_a_job_is_read_before_the_first_of_them_trains(tmp_path, monkeypatch):
    (tmp_path / "good.yaml").write_text(STUDY.replace("NAME", "good").replace("RATE", "3.0e-3"))
    (tmp_path / "own.yaml").write_text(OWN)
    launched = []
    monkeypatch.setattr(grid, "launch", lambda study, *_, **__: launched.append(study))
    for wrong, message in (("own.yaml", "no such file: .*my_kd.py"), ("bed.yaml", "bed.yaml")):
        with pytest.raises(UserError, match=message):
            grid.main([str(tmp_path / "good.yaml"), str(tmp_path / wrong)], store=tmp_path / "store")
    assert launched == []
