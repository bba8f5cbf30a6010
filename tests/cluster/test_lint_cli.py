"""`transkd cluster lint` takes a spec, or a launcher file with the spec that goes with it: exit code 1 for findings."""

import re
import sys
from pathlib import Path

import pytest
import yaml

import cluster
from orchestrator.cli import app, guarded

FOLDER = Path(cluster.__file__).parent


@pytest.fixture
def lint(monkeypatch, capsys):
    """lint(*words) -> exit code, stdout, stderr."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["transkd", "cluster", "lint", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            guarded(app)
        return end.value.code, *capsys.readouterr()

    return call


def test_a_spec_is_held_to_this_machine(lint, tmp_path):
    assert lint("kuberay") == (0, "nothing to mend\n", "")
    (tmp_path / "greedy.yaml").write_text("workers: 4096\n")
    code, out, err = lint(tmp_path / "greedy.yaml")
    assert (code, err) == (1, "")
    assert out.startswith("cannot-fit: line 1: a run needs 4096 CPUs")


def test_a_spec_is_held_to_the_launcher_file_beside_it(lint, tmp_path):
    (tmp_path / "ray-up-mine.yaml").write_text((FOLDER / "ray-up-aws.yaml").read_text())
    spec = yaml.safe_load((FOLDER / "aws.yaml").read_text())
    (tmp_path / "mine.yaml").write_text(
        yaml.safe_dump({**spec, "cpus_per_machine": 8, "cpus_per_worker": 8, "store": "s3://b/s"})
    )
    code, out, _ = lint(tmp_path / "mine.yaml")
    assert code == 1
    assert [line.partition(":")[0] for line in out.splitlines()] == ["cannot-fit", "machine-differs"]


def test_a_finding_names_the_line_of_the_spec(lint, tmp_path):
    (tmp_path / "mine.yaml").write_text("# two threads\nworkers: 1\nthreads: 2\n")
    code, out, _ = lint(tmp_path / "mine.yaml")
    assert code == 1
    assert out.startswith("threads-exceed-cpus: line 3: 2 threads per worker on 1 CPU")


def test_an_empty_spec_has_no_line(lint, tmp_path):
    (tmp_path / "mine.yaml").write_text("")
    _, out, err = lint(tmp_path / "mine.yaml")
    assert (err, "line" in out) == ("", False)


def test_a_script_for_slurm_is_held_to_its_spec(lint, tmp_path):
    for script in ("slurm.sh", "slurm-array.sh"):
        assert lint(FOLDER / script) == (0, "nothing to mend\n", "")
    (tmp_path / "slurm.sh").write_text((FOLDER / "slurm.sh").read_text().replace("--cpus-per-task=26", "-c 2"))
    code, out, _ = lint(tmp_path / "slurm.sh")
    assert (code, out.partition(": line 15: ")[0]) == (1, "cannot-fit")


def test_a_spec_for_gpus_is_not_held_to_a_machine_without_any(lint):
    code, out, _ = lint("gpu")
    assert (code, out.splitlines()[-1]) == (0, "nothing to mend")
    assert out.startswith("not checked: whether a run fits, ")


@pytest.mark.parametrize(
    "name",
    ["ray-up-aws.yaml", "ray-up-gcp.yaml", "ray-up-hosts.yaml", "kubectl-kuberay.yaml", "kubectl-raycluster.yaml"],
)
def test_a_launcher_file_is_held_to_the_spec_of_its_name(lint, name):
    code, out, _ = lint(FOLDER / name)
    assert code == 1
    assert {line.partition(": ")[0] for line in out.splitlines()} == {"placeholder"}


def test_a_launcher_file_is_held_to_the_spec_that_is_given(lint, tmp_path):
    config = yaml.safe_load((FOLDER / "ray-up-aws.yaml").read_text())
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    code, _, err = lint(tmp_path / "mine.yaml")
    assert (code, err.partition(";")[0]) == (2, "error: unknown cluster spec 'mine'")
    (tmp_path / "two.yaml").write_text("address: auto\nworkers: 2\ngpus_per_worker: 2\nstore: /mnt/transkd/store\n")
    code, out, _ = lint(tmp_path / "mine.yaml", "--cluster", tmp_path / "two.yaml")
    assert code == 1
    assert re.search(
        "^cannot-fit: line [0-9]+: .* on 8 machines of 6 CPUs and 1 GPU: a worker cannot span two", out, re.M
    )
