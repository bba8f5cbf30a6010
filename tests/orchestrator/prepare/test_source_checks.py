"""A plan says of data and weights what it could not check, and refuses what no run could read."""

import os

import pytest

from ablations.study.plan import expand
from ablations.study.schema import read
from cluster.spec import ClusterSpec
from orchestrator.prepare.jobs import Preparer
from orchestrator.prepare.source_checks import not_here
from orchestrator.store.folder import Store
from orchestrator.verbs.plan import plan
from trainer.config import UserError

STUDY = """
name: read
base:
  data: {{name: {data}, size: [32, 64]}}
  student: {{name: segformer_tiny, init: {init}}}
  teacher: {{name: segformer_mini, checkpoint: {teacher}, miou: 40}}
  optim: {{epochs: 1, global_batch: 8, norm_batch: 4}}
  distill: {{csf: {{}}}}
variants: {{one: {{}}}}
seeds: 2
"""


@pytest.fixture
def asked(tmp_path):
    """asked(data, init, teacher, roots) -> what `not_here` says of that study's runs."""

    def ask(data="scenes", init="scratch", teacher="none.pt", roots=None, **spec):
        study = read(STUDY.format(data=data, init=init, teacher=teacher), "read.yaml")
        preparer = Preparer("read", ClusterSpec(**spec), Store(tmp_path / "store"), roots or {})
        return not_here(preparer, [run.config for run in expand(study)])

    return ask


def test_weights_that_are_not_here_are_named_once(asked, tmp_path):
    assert asked() == ["no such weights here: none.pt"]
    assert asked(init="~nobody-here/x.pt") == [
        "no such weights here: ~nobody-here/x.pt",
        "no such weights here: none.pt",
    ]
    (tmp_path / "there.pt").write_bytes(b"weights")
    assert asked(teacher=tmp_path / "there.pt") == []


@pytest.mark.parametrize("address", ["s3://bucket/x.pt", "https://me:secret@host/x.pt", "hf://org/model"])
def test_an_address_is_no_file_of_weights(asked, address):
    for given in ({"init": address}, {"teacher": address}):
        with pytest.raises(UserError, match=r"weights must be a file but got .*; copy it") as refused:
            asked(**given)
        assert "secret" not in str(refused.value)


def test_weights_that_are_here_and_cannot_be_read_are_refused(asked, tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "empty").mkdir()
    for name in ("pipe.pt", "empty"):
        with pytest.raises(UserError, match=name):
            asked(teacher=tmp_path / name)


def test_a_folder_of_other_data_is_refused_and_an_absent_one_is_told(asked, tmp_path):
    (tmp_path / "teacher.pt").write_bytes(b"weights")
    given = {"data": "camvid", "teacher": tmp_path / "teacher.pt"}
    assert asked(**given) == ["the folder of camvid is not given (--data-root FOLDER)"]
    elsewhere = asked(**given, data_roots={"camvid": "/on/another/machine"})
    assert elsewhere == ["the folder of camvid is not on this machine: /on/another/machine"]
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="other"):
        asked(**given, roots={"camvid": tmp_path / "other"})


@pytest.mark.slow
def test_plan_prints_it(tmp_path, capsys):
    (tmp_path / "read.yaml").write_text(STUDY.format(data="camvid", init="scratch", teacher="none.pt"))
    plan(str(tmp_path / "read.yaml"), tmp_path / "store", None, None, None, None, False)
    said = capsys.readouterr().out.splitlines()
    assert "not checked: the folder of camvid is not given (--data-root FOLDER)" in said
    assert "not checked: no such weights here: none.pt" in said
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match=r"read: .*other"):
        plan(str(tmp_path / "read.yaml"), tmp_path / "store", None, [str(tmp_path / "other")], None, None, False)
