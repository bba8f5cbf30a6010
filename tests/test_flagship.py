"""benchmarks/flagship.sh: a study is trained without Ray, cut short, taken up again, imported and reported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "flagship.sh"
STUDY = """\
name: small
base:
  data: {name: scenes, size: [32, 64], options: {train: 16, val: 8}}
  student: {name: segformer_tiny}
  teacher: {name: segformer_mini, train: {epochs: 2}}
  optim: {epochs: 2, lr: 1.0e-3, global_batch: 8, norm_batch: 4}
  distill: {csf: {}, pea: {}}
variants:
  student alone: {distill: {}}
  TransKD-Base: {}
  TransKD-GL: {distill.pea: null, distill.pea_gl: {}}
seeds: 2
"""


@pytest.fixture
def run(tmp_path):
    """Runs a command in a folder outside the repository and returns what it printed."""
    surroundings = {
        **os.environ,
        "PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
        "TRANSKD_STORE": str(tmp_path / "store"),
        "TRANSKD_CACHE": str(tmp_path / "cache"),
    }

    def command(*words, code=0):
        done = subprocess.run(
            [str(word) for word in words], cwd=tmp_path, env=surroundings, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    return command


@pytest.mark.slow
def test_a_lease_cut_short_leaves_whole_seeds_and_another_goes_on(run, tmp_path):
    study, out = tmp_path / "small.yaml", tmp_path / "out"
    study.write_text(STUDY, encoding="utf-8")
    (out / "configs" / "seed5").mkdir(parents=True)  # of another study, or of a start that was killed
    (out / "configs" / "seed5" / "kd.yaml").write_text("seed: 5", encoding="utf-8")
    assert "no time for seed0" in run(SCRIPT, "small.yaml", "out", 0)
    assert (out / "runs/teacher/result.json").exists() and not (out / "runs/seed0").exists()

    said = run(SCRIPT, "small.yaml", "out", 3600)
    assert "seed0: " in said and "seed1: " in said and "seed5" not in said
    results = sorted(str(path.parent.relative_to(out / "runs")) for path in out.glob("runs/*/*/result.json"))
    arms = ["student-alone", "transkd-base", "transkd-gl"]
    assert results == [f"seed{seed}/{arm}" for seed in range(2) for arm in arms]

    transkd = (sys.executable, "-m", "orchestrator")
    assert "7 imported" in run(*transkd, "import", out / "runs")
    table = run(*transkd, "report", study)
    for arm in ("student alone", "TransKD-Base", "TransKD-GL"):
        (row,) = [line for line in table.splitlines() if line.startswith(arm)]
        assert row.removeprefix(arm).split()[0] == "2"


@pytest.mark.parametrize("given", [("small.yaml", "out"), ("small.yaml", "out", "10m"), ("small.yaml", "out", "-5")])
def test_a_time_that_is_no_number_is_refused_before_anything_is_trained(run, tmp_path, given):
    (tmp_path / "small.yaml").write_text(STUDY, encoding="utf-8")
    assert "SECONDS is a whole number" in run(SCRIPT, *given, code=2)
    assert not (tmp_path / "out").exists()
