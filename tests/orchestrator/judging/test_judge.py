"""transkd judge from its command line: files, MLflow, and nothing of torch or Ray."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.judging.judged import judged
from orchestrator.judging.scores import Choices
from trainer.config import UserError

ROOT = Path(__file__).parents[3]
BLOCKED = """
import sys
class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent}:
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Refused())
from orchestrator.cli import main
from trainer.config import UserError
sys.argv[0] = "transkd"
main()
"""
WITHOUT = BLOCKED.format(absent=("torch", "torchvision", "ray", "timm", "onnx", "optuna", "mlflow", "pandas"))
THREE = "method,seed,miou\n" + "".join(
    f"{arm},{seed},{value}\n"
    for arm, values in {"ours": (76.1, 76.9, 76.5), "base": (75.0, 75.9, 75.2)}.items()
    for seed, value in enumerate(values)
)


def judge(folder, *arguments, program=WITHOUT):
    command = [sys.executable, "-c", program, "judge", *map(str, arguments)]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=540, check=False
    )


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_three_seeds_of_two_methods_give_a_table_and_a_page_without_torch_and_ray(tmp_path):
    (tmp_path / "results.csv").write_text(THREE, encoding="utf-8")
    done = judge(tmp_path, "results.csv")
    assert done.returncode == 0, done.stderr
    assert "n too small: 3 seeds cannot decide 1 contrast at 5 %" in done.stdout
    assert "at least 6 seeds" in done.stdout and "undecided" in done.stdout
    assert "arms in column method, seeds in column seed, scores in column miou" in done.stderr
    folder = tmp_path / "results-judged"
    names = {"table.txt", "table.md", "table.tex", "table.csv", "table.parquet", "report.html"}
    assert {path.name for path in folder.iterdir()} == names
    page = (folder / "report.html").read_text(encoding="utf-8")
    for part in (
        "Results",
        "Differences",
        "Scores",
        "How the scores were read",
        "results.csv",
        "Guessed from the names",
    ):
        assert part in page
    assert rows_of(folder / "table.csv")[0]["verdict"] == "undecided"


@pytest.mark.slow
def test_a_refusal_writes_nothing(tmp_path):
    (tmp_path / "results.csv").write_text(THREE.replace("76.9", "n/a"), encoding="utf-8")
    done = judge(tmp_path, "results.csv")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "row 3: miou must be a finite number, but got 'n/a'" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["results.csv"]


@pytest.mark.slow
def test_an_experiment_of_mlflow_is_judged_and_stays_as_it_is(tmp_path, monkeypatch):
    from mlflow import MlflowClient

    from orchestrator.judging.mlflow_runs import read_experiment

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no MLflow database"):
        read_experiment("kd", uri)
    assert not list(tmp_path.iterdir())
    client = MlflowClient(uri)
    experiment = client.create_experiment("kd", artifact_location=str(tmp_path / "artifacts"))
    for arm, base in (("base", 75.0), ("ours", 76.0)):
        for seed in range(6):
            run = client.create_run(experiment, run_name=f"{arm}-{seed}").info.run_id
            client.log_param(run, "method", arm)
            client.log_param(run, "seed", str(seed))
            client.log_metric(run, "val/miou", 10.0, step=0)
            client.log_metric(run, "val/miou", base + seed / 10, step=1)
            client.set_terminated(run)
    client.create_run(experiment, run_name="still running")
    ours = client.create_run(experiment, tags={"transkd.role": "seeds", "transkd.arm": "ours"}).info.run_id
    client.log_metric(ours, "val/miou", 99.0)
    client.set_terminated(ours)
    found = judged("kd", read_experiment("kd", uri), Choices())
    assert found.measured.metric == "val/miou" and found.measured.pairs == (("ours", "base"),)
    (row,) = (row.values for row in found.table.rows if row.values["arm"] == "ours")
    assert row["difference"] == pytest.approx(1.0) and row["verdict"] == "better"
    assert "Left out: 1 row whose status is running." in found.remarks
    with pytest.raises(UserError, match="there is no such experiment"):
        read_experiment("kd2", uri)
    with pytest.raises(UserError, match="--tracking-uri must be a server or a database"):
        read_experiment("kd", str(tmp_path))
    for unread in ("http://127.0.0.1:9", f"{uri}?timeout=x"):
        with pytest.raises(UserError, match=f"^MLflow experiment kd of {re.escape(unread)} cannot be read: .*; check"):
            read_experiment("kd", unread)


@pytest.mark.parametrize(("title", "uri", "option"), [("", None, "--mlflow"), ("kd", " ", "--tracking-uri")])
def test_an_experiment_or_address_that_is_empty_is_told(title, uri, option):
    from orchestrator.judging.mlflow_runs import read_experiment

    with pytest.raises(
        UserError, match=f"^{option} must not be empty but got '{title if uri is None else uri}'; write {option} "
    ):
        read_experiment(title, uri)
