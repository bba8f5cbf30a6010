"""A study as YAML: what `read` makes of the text is the study again."""

from __future__ import annotations

import pytest

from ablations.study.as_yaml import as_yaml
from ablations.study.schema import Study, load, packaged, read
from trainer.config import UserError


@pytest.mark.parametrize("name", packaged())
def test_a_packaged_study_is_read_again(name):
    study = load(name)
    assert read(as_yaml(study), name) == study


def test_a_study_with_looks_made_in_python_is_read_again():
    base = {"student": {"name": "segformer_tiny"}, "teacher": {"name": "segformer_mini", "train": {"epochs": 3}}}
    study = Study(
        name="mine",
        base={**base, "distill": {"csf": {}}},
        variants={"alone": {"distill": {}}, "csf": {}},
        seeds={"looks": [6, 8], "until": "decided"},
    )
    again = read(as_yaml(study), "mine")
    assert again == study and again.looks == (6, 8)


def test_a_study_with_plugins_must_be_given_as_its_file(own):
    (file,) = [path for path in own.glob("*.yaml") if "plugins" in path.read_text(encoding="utf-8")]
    with pytest.raises(UserError, match="give the path of its file"):
        as_yaml(load(file))
