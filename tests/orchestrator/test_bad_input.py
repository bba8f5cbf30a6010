"""Whatever is wrong is one line before anything starts: exit code 2, and no run, no ledger, no Ray."""

import os
import shutil
import socket
import sys

import pytest
import yaml

from orchestrator.cli import app, guarded
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger

BASE = {
    "data": {"name": "scenes", "size": [64, 128], "options": {"train": 16, "val": 8, "size": [64, 128]}},
    "student": {"name": "segformer_tiny"},
    "teacher": {"name": "segformer_mini", "train": {"epochs": 1}},
    "optim": {"epochs": 1, "global_batch": 8},
    "distill": {"csf": {}, "pea": {}},
}
SOUGHT = {**BASE, "data": {**BASE["data"], "select": 0.25}}
STUDENTS = {"student.name": {"choice": ["segformer_tiny", "segformer_mini"]}}
TYPO = (
    {"distill.csf.options.temprature": {"uniform": [1.0, 4.0]}, "optim.lr": {"log": [1.0e-3, 1.0e-2]}},
    "search.space: distill.csf.options.temprature 4.0 can never be built: distill.csf: unknown option 'temprature'; "
    "did you mean 'temperature'?",
)
GOOD = {"name": "good", "base": BASE, "variants": {"student alone": {"distill": {}}, "base": {}}}


def changed(**sections):
    return {**GOOD, "base": {**BASE, **sections}}


@pytest.fixture
def transkd(tmp_path, cached, monkeypatch, capsys):
    """transkd(*words) -> exit code, stdout, stderr; in this process, on a store that is empty but for its cache."""
    cached(tmp_path / "store")
    for name in ("TRANSKD_STORE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "good.yaml").write_text(yaml.safe_dump(GOOD))

    def call(*words, store=("--store", tmp_path / "store")):
        monkeypatch.setattr(sys, "argv", ["transkd", *map(str, (*words, *store))])
        with pytest.raises(SystemExit) as end:
            guarded(app)
        return end.value.code, *capsys.readouterr()

    return call


def written(tmp_path):
    """What stands in the store, caches aside."""
    return {path.name for path in (tmp_path / "store").glob("*")} - {"cache"}


@pytest.mark.parametrize("verb", ["plan", "run", "report", "bundle"])
def test_a_study_is_a_file_and_no_pipe_or_device(transkd, tmp_path, verb):
    os.mkfifo(tmp_path / "pipe.yaml")
    os.mkfifo(tmp_path / "pipe")
    for study in (tmp_path / "pipe.yaml", tmp_path / "pipe", "/dev/zero"):
        code, said, errors = transkd(verb, study)
        assert (code, said) == (2, "")
        assert f"{study} is a" in errors and "and only files can be read" in errors
        assert len(errors.splitlines()) == 1
    assert not written(tmp_path)


def test_a_bundle_is_a_file_that_is_not_read(transkd, tmp_path):
    os.mkfifo(tmp_path / "pipe.tar.gz")
    assert "is a pipe, and only files can be read" in transkd("report", tmp_path / "pipe.tar.gz")[2]
    (tmp_path / "good.tar.gz").symlink_to(tmp_path / "good.yaml")
    code, _, errors = transkd("bundle", tmp_path / "good.yaml", "--out", tmp_path / "good.tar.gz")
    assert code == 2
    assert f"would be written over {tmp_path / 'good.yaml'}, which is read; name another file" in errors


def test_weights_are_files_and_no_devices(transkd, tmp_path):
    student = changed(student={"name": "segformer_tiny", "init": "/dev/zero"})
    teacher = changed(teacher={"name": "segformer_mini", "checkpoint": "/dev/zero"})
    for verb, study in (("plan", student), ("run", teacher)):
        (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
        code, _, errors = transkd(verb, tmp_path / "study.yaml")
        assert code == 2
        assert "/dev/zero is a device, and only files can be read" in errors


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["run", "cityscape_modules"], "unknown study 'cityscape_modules'; did you mean 'cityscapes_modules'?"),
        (["run", "no/such.yaml"], "no such file: no/such.yaml"),
        (["run", "good.yaml", "--cluster", "gpus"], "unknown cluster spec 'gpus'; did you mean 'gpu'?"),
        (["run", "good.yaml", "--workers", 4096], "a run needs 4096 CPUs (4096 workers x 1) but there "),
        (
            ["run", "good.yaml", "--workers", "4-1"],
            "--workers 4-1: workers: must be a whole number, or the lower and the",
        ),
        (["plan", "good.yaml", "--workers", "3-4"], "workers must divide optim.global_batch (8) but got 3"),
        (["run", "good.yaml", "--data-root", "/no/such/folder"], "--data-root: no such folder: /no/such/folder"),
        (["plan", "good.yaml", "--cluster", "uneven.yaml"], "workers must divide optim.global_batch (8) but got 3"),
        (["run", "good.yaml", "--cluster", "uneven.yaml"], "workers must divide optim.global_batch (8) but got 3"),
        (
            ["run", "good.yaml", "--cluster", "groups.yaml"],
            "would split BatchNorm groups of 8 samples over forward passes; with 1 worker take one of 8, or set optim",
        ),
        (["run", "good.yaml", "--cluster", "shared.yaml", "--workers", 2], "--workers 2: gpus_per_worker must be 0 or"),
        (["run", "camvid_modules"], "camvid"),
    ],
)
def test_a_mistake_on_the_command_line(transkd, tmp_path, monkeypatch, words, error):
    monkeypatch.chdir(tmp_path)
    for name, spec in (
        ("uneven", {"workers": 3, "cpus_per_worker": 0.01}),
        ("groups", {"micro_batch": 4, "cpus_per_worker": 0.01}),
        ("shared", {"gpus_per_worker": 0.5}),
    ):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(spec))
    code, _, err = transkd(*words)
    assert code == 2
    assert err.startswith("error: ") and error in err and err.count("\n") == 1, err
    assert not written(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("study", "error"),
    [
        ({**GOOD, "variant": {}}, "variant: unknown key; did you mean 'variants'?"),
        (changed(optimizer={}), "unknown key; did you mean 'optim'?"),
        (changed(optim={"lr": "1e-3"}), "YAML reads '1e-3' as text, not as a number; write 1.0e-3"),
        (changed(distill={"pae": {}}), "unknown distiller 'pae'; did you mean 'pea'?"),
        (changed(distill={"csf": {"options": {"norms": 1}}}), "norms"),
        (changed(student={"name": "segformer_b9"}), "unknown model 'segformer_b9'; did you mean"),
        (changed(teacher=None), "needs a teacher"),
        ({**GOOD, "excludes": [["distill.csf", "distill.pea"]]}, "variants.base: "),
        ({**GOOD, "contrasts": [["base", "bass"]]}, "contrasts: unknown arm 'bass'; did you mean 'base'?"),
        (changed(student={"name": "segformer_tiny", "init": "/no/such.pth"}), "cannot read the weights /no/such.pth"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mistake_in_a_study(transkd, tmp_path, study, error):
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(study))
    code, _, err = transkd("run", tmp_path / "bad.yaml")
    assert code == 2
    assert err.startswith("error: ") and error in err and err.count("\n") == 1, err
    assert not written(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["plan", "run"])
def test_a_search_whose_base_is_beyond_a_limit(transkd, tmp_path, verb):
    """Unless proposals choose the student: then the base is nobody's."""
    search = {"trials": 2, "space": {"optim.lr": {"log": [1.0e-3, 1.0e-2]}}}
    base = {**SOUGHT, "student": {"name": "segformer_mini"}}
    study = {"name": "sought", "base": base, "search": search, "limits": {"params_m": 0.2}}
    (tmp_path / "sought.yaml").write_text(yaml.safe_dump(study))
    code, _, err = transkd(verb, tmp_path / "sought.yaml")
    assert code == 2
    assert err.startswith("error: sought: limits: base: params_m 0.5861 is above 0.2;") and err.count("\n") == 1, err
    assert not written(tmp_path)
    if verb == "plan":
        search |= {"space": STUDENTS, "learn_from": ["nope"]}
        (tmp_path / "sought.yaml").write_text(yaml.safe_dump(study))
        code, out, _ = transkd(verb, tmp_path / "sought.yaml", "--no-probe")
        assert code == 0
        assert "learns from: nope (no such search in this store)" in out.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "space", "error"),
    [
        ("search", *TYPO),
        ("tune_each", *TYPO),
        (
            "search",
            {"student.name": {"choice": ["segformer_tiny", "segformer_tinny"]}, "distill.csf": {"choice": [None, {}]}},
            "search.space: student.name segformer_tinny can never be built: unknown model",
        ),
        (
            "search",
            STUDENTS,
            "limits: segformer_tiny: params_m 0.05695 is above 0.05; segformer_mini: params_m 0.5861 is",
        ),
    ],
    ids=["an option", "an option of a variant", "one choice", "limits"],
)
def test_what_no_trial_can_be_is_refused_before_the_teacher_trains(transkd, tmp_path, kind, space, error):
    given = {kind: {"trials": 2, "startup": 1, "space": space}}
    given |= {"variants": {"student alone": {"distill": {}}, "base": {}}} if kind == "tune_each" else {}
    limits = {"params_m": 0.05} if space == STUDENTS else {}
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump({"name": "bad", "base": SOUGHT, "limits": limits, **given}))
    for verb in ("plan", "run"):
        code, _, err = transkd(verb, tmp_path / "bad.yaml")
        assert code == 2
        assert err.startswith("error: ") and error in err and err.count("\n") == 1, err
    assert not written(tmp_path)


@pytest.mark.parametrize("words", [("run", "good.yaml"), ("sync", "good.yaml"), ("ui",)])
def test_an_address_where_no_tracking_can_be(transkd, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:///tmp/mlruns")
    code, _, err = transkd(*words)
    assert code == 2
    assert err.startswith("error: MLFLOW_TRACKING_URI must be a server or a database") and err.count("\n") == 1, err
    assert not written(tmp_path)


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_a_temporary_folder_that_is_too_long_for_sockets(transkd, tmp_path, monkeypatch, name):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    folder = tmp_path / ("deep" * 20)
    folder.mkdir()
    monkeypatch.setenv(name, str(folder))
    code, _, err = transkd("run", tmp_path / "good.yaml")
    assert (code, err.count("\n")) == (2, 1), err
    assert f"error: {name} is " in err and f"whose paths end at 107: {folder}; set RAY_TMPDIR to " in err
    assert not written(tmp_path)


def test_a_temporary_folder_that_cannot_be_written(transkd, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", "/dev/null")
    code, _, err = transkd("run", tmp_path / "good.yaml")
    assert (code, err) == (
        2,
        "error: RAY_TMPDIR: Ray cannot write below /dev/null; set RAY_TMPDIR to a short folder of this machine, for "
        "example /tmp\n",
    )


@pytest.mark.parametrize("address", ["s3://b/x", "gs://b/x", "hdfs://host:9000/x", "file:///x", "S3:/b/x"])
def test_an_address_is_no_folder_of_data(transkd, tmp_path, monkeypatch, address):
    monkeypatch.setenv("TRANSKD_STORE", str(tmp_path / "store"))
    code, _, err = transkd("run", tmp_path / "good.yaml", store=("--data-root", address))
    assert (code, err.count("\n")) == (2, 1)
    shown = address.replace("S3:/", "s3://")
    assert f"--data-root: must be a folder but got {shown}; mount it as a " in err, err


@pytest.mark.parametrize("option", ["--store", "TRANSKD_STORE"])
def test_an_address_of_no_store(transkd, tmp_path, monkeypatch, option):
    address = "hdfs://host:9000/x"
    given = () if option == "TRANSKD_STORE" else (option, address)
    monkeypatch.setenv("TRANSKD_STORE", str(tmp_path / "store") if given else address)
    code, _, err = transkd("run", tmp_path / "good.yaml", store=given)
    assert (code, err.count("\n")) == (2, 1)
    assert f"store ({option}): must be a folder, s3://BUCKET/PREFIX" in err and address in err, err


def test_the_page_of_a_store_that_does_not_exist(transkd, tmp_path):
    code, _, err = transkd("ui", store=("--store", tmp_path / "none"))
    assert code == 2
    assert (
        err == f"error: no study has run in store {tmp_path / 'none'}; give the folder or address of one with --store\n"
    )
    assert not (tmp_path / "none").exists()


def test_the_page_on_a_port_that_is_taken(transkd, tmp_path):
    (tmp_path / "store" / "ledger.jsonl").touch()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code, _, err = transkd("ui", "--port", port)
    assert (code, err) == (2, f"error: --port {port} cannot be used (Address already in use); choose another\n")
    assert not (tmp_path / "store" / "mlflow.db").exists()


def test_more_workers_than_the_machine_has_write_nothing_at_all(transkd, tmp_path):
    shutil.rmtree(tmp_path / "store")
    code, _, err = transkd("run", tmp_path / "good.yaml", "--workers", 4096)
    assert (code, err.count("\n")) == (2, 1)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("address", "error"),
    [
        ("127.0.0.1:1", "no Ray answers at 127.0.0.1:1 ([Errno 111] Connection refused); start one there"),
        ("ray://head:10001", "address must be local, auto or HOST:PORT but got ray://head:10001"),
        ("head", "address must be local, auto or HOST:PORT but got head"),
    ],
)
def test_an_address_where_no_ray_is(transkd, tmp_path, address, error):
    (tmp_path / "spec.yaml").write_text(f"address: {address}\n")
    code, _, said = transkd("run", tmp_path / "good.yaml", "--cluster", tmp_path / "spec.yaml")
    assert code == 2
    assert error in said
    assert len(said.splitlines()) == 1
    assert written(tmp_path) == set()


@pytest.mark.slow
def test_a_second_driver_of_a_study_is_told_of_the_first(transkd, tmp_path):
    with Store(tmp_path / "store").leases.study("good"):
        code, _, err = transkd("run", tmp_path / "good.yaml")
        assert code == 2
        assert err.startswith(f"error: study good is run by pid {os.getpid()} on ")
        assert not Ledger(tmp_path / "store" / "ledger.jsonl").exists
        code, out, _ = transkd("status", tmp_path / "good.yaml")
        assert code == 0
        assert f"driver: pid {os.getpid()} on " in out
    code, out, _ = transkd("status", tmp_path / "good.yaml")
    assert out == "good: 3 runs: 3 missing; driver: none\n"


def test_a_folder_of_data_without_its_files_is_named_before_training(transkd, tmp_path):
    (tmp_path / "empty").mkdir()
    code, _, err = transkd("run", "camvid_modules", "--data-root", tmp_path / "empty")
    assert code == 2
    assert str(tmp_path / "empty") in err and err.count("\n") == 1, err
    assert not written(tmp_path)
