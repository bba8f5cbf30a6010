"""`transkd cluster init` writes a launcher and its spec; with all answers nothing is left for lint to name."""

import sys

import pytest
import yaml

from cluster.fill_in import ANSWERS, LAUNCHER, filled_in
from orchestrator.cli import app, guarded
from trainer.config import UserError


@pytest.fixture
def transkd(monkeypatch, capsys, tmp_path):
    """transkd(*words) -> exit code, stdout, stderr, of a command in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["transkd", "cluster", *words])
        with pytest.raises(SystemExit) as end:
            guarded(app)
        return end.value.code or 0, *capsys.readouterr()

    return call


@pytest.mark.parametrize("kind", ANSWERS)
def test_what_is_filled_in_by_all_answers_lints_clean(transkd, kind, tmp_path):
    launcher = LAUNCHER.get(kind, f"ray-up-{kind}.yaml")
    fill = [word for name, answer in ANSWERS[kind].items() for word in ("--fill", f"{name}={answer.example}")]
    code, out, err = transkd("init", kind, *fill)
    assert (code, out.splitlines()[1:], err) == (0, [], "")
    text = (tmp_path / launcher).read_text()
    assert all(answer.example.split(",")[0] in text for answer in ANSWERS[kind].values())
    assert transkd("lint", launcher) == (0, "nothing to mend\n", "")
    before = text
    code, _, err = transkd("init", kind)
    assert code == 2 and f"{launcher} is there already" in err
    assert (tmp_path / launcher).read_text() == before


def test_what_is_left_to_fill_in_is_named(transkd):
    code, out, _ = transkd("init", "aws", "--fill", "image=ami-0a1b2c3d4e5f60718")
    assert code == 0
    launcher, spec = out.splitlines()[1:]
    assert launcher.startswith("placeholder: line ") and "fill-in-bucket" in launcher
    assert spec.startswith("placeholder: store of the cluster spec is s3://fill-in-bucket/")


def test_the_bucket_and_the_project_are_those_of_launcher_and_spec():
    launcher, spec = filled_in("gcp", {"bucket": "mine", "project": "a-project"}).values()
    assert yaml.safe_load(spec)["store"].startswith("gs://mine/") and "gs://mine/transkd/data " in launcher
    workers = [kind for name, kind in yaml.safe_load(launcher)["available_node_types"].items() if name != "head"]
    emails = [account["email"] for kind in workers for account in kind["node_config"]["serviceAccounts"]]
    assert emails == ["ray-autoscaler-sa-v1@a-project.iam.gserviceaccount.com"] * 2


@pytest.mark.parametrize("kind", [kind for kind in ANSWERS if "machines" in ANSWERS[kind]])
def test_the_number_of_machines_is_that_of_launcher_and_spec(kind):
    launcher, spec = filled_in(kind, {"machines": "3"}).values()
    assert (yaml.safe_load(spec)["max_gpus"], yaml.safe_load(spec)["max_cpus"]) == (3, 18)
    assert "max_workers: 8" not in launcher and "maxReplicas: 8" not in launcher


@pytest.mark.parametrize(
    ("kind", "answers", "words"),
    [
        ("awss", {}, "did you mean 'aws'"),
        ("aws", {"imagee": "x"}, "did you mean 'image'"),
        ("aws", {"image": "ami-1; rm"}, "image must be such as ami-"),
        ("aws", {"machines": "0"}, "machines must be such as 8"),
        ("aws", {"bucket": "My.Bucket"}, "bucket must be such as my-bucket"),
        ("aws", {"file_system": "fs-0a1b2c3d"}, "known: bucket, image"),
        ("gcp", {"address": "10.0.0.2"}, "known: bucket, image"),
        ("hosts", {"workers": "a b"}, "workers must be such as gpu-2,gpu-3"),
    ],
)
def test_a_wrong_answer_is_refused_with_the_rule(kind, answers, words):
    with pytest.raises(UserError, match=words):
        filled_in(kind, answers)


def test_a_word_without_a_value_is_refused(transkd):
    code, _, err = transkd("init", "slurm", "--fill", "nodes")
    assert (code, err.strip()) == (
        2,
        "error: --fill must be NAME=VALUE but got nodes; names for slurm: nodes, gpus, cpus, time",
    )
