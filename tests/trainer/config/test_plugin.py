"""Plugins as values of a config: names read without running a file, keys of the runs that use them, packages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from trainer.config import UserError, parse, with_plugins
from trainer.config.plugin import entries_of, read_plugin
from trainer.config.plugin_sources import resolve

DISTILLER = "DISTILLERS = {'gap': None}\n"


def written(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return folder


def config(folder: Path, *files: str, **sections: Any) -> Any:
    teacher = {"teacher": {"name": "segformer_tiny", "train": {"epochs": 1}}}
    listed = {"plugins": list(files)} if files else {}
    return parse(with_plugins({**listed, **teacher, **sections}, folder))


def test_names_are_read_without_running_the_file() -> None:
    text = "raise SystemExit\nMODELS: dict = {'net': 1, 'other': 2}\nDISTILLERS = {'gap': 3}\nx = 1\n"
    assert entries_of(text, "my.py") == {"MODELS": ("net", "other"), "DISTILLERS": ("gap",)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = (\n", "plugin my.py, line 1 is not Python: '(' was never closed; correct the file"),
        ("x = 1\n  y = 2\n", "plugin my.py, line 2 is not Python: unexpected indent; correct the file"),
        ("x = 1\n", "plugin my.py defines nothing: write one of DISTILLERS, MODELS, DATASETS"),
        ("DISTILLERS = {}\n", "plugin my.py defines nothing: write one of"),
        ("\nMODELS = dict(net=1)\n", "plugin my.py, line 2: MODELS must be a dictionary whose names are written out"),
        ("MODELS = {**{}}\n", "plugin my.py, line 1: MODELS must be a dictionary whose names are written out"),
        ("MODELS = {1: 2}\n", "plugin my.py, line 1: MODELS must be a dictionary whose names are written out"),
        ("MODELS = {'a': 1, 'a': 2}\n", "plugin my.py, line 1: MODELS has the name 'a' twice; rename one"),
        *[
            (
                f"AUGMENTATIONS = {{'{name}': 1}}\n",
                f"line 1: AUGMENTATIONS: the name '{name}' means something else where a step is named; rename it",
            )
            for name in ("standard", "reference", "none", "name", "options")
        ],
        ("DISTILLERS = {'total': 1}\n", "the name 'total' means something else where a distiller is named; rename it"),
        (
            "MODELS = {'My.Net': 1}\n",
            "MODELS: a name has small letters, digits and underscores, and begins with a letter",
        ),
    ],
)
def test_what_defines_no_names_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        entries_of(text, "my.py")


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        (["away.py"], "plugins: no such file: {folder}/away.py; put it beside the study"),
        (["../gap.py"], "plugins: a plugin is the name of a Python file beside the study, such as my_kd.py, but got"),
        (["gap.txt"], "plugins: a plugin is the name of a Python file beside the study"),
        ([3], "plugins: a plugin is the name of a Python file beside the study, such as my_kd.py, but got 3"),
        ("gap.py", "plugins: a list of files is expected, for example [my_kd.py], but got 'gap.py'"),
        (["gap.py", "gap.py"], "plugins: each file may be named once, but got gap.py, gap.py; remove one"),
        (["gap.py", "too.py"], "plugins: the distiller 'gap' is defined twice, in gap.py and in too.py; rename one"),
        (["long.py"], "plugins: plugin files may have 60,000 characters, but long.py has 60,0"),
    ],
)
def test_a_list_that_cannot_be_read_is_refused(listed: Any, message: str, tmp_path: Path) -> None:
    written(tmp_path, gap=DISTILLER, too=f"\n{DISTILLER}", long=f"{DISTILLER}#{'x' * 60_000}\n")
    with pytest.raises(UserError, match=re.escape(message.format(folder=tmp_path))):
        resolve(listed, tmp_path)


def test_a_plugin_enters_the_keys_of_the_runs_that_use_it_and_of_no_others(tmp_path: Path) -> None:
    written(tmp_path, gap=DISTILLER, net="MODELS = {'net': None}\n", data="DATASETS = {'blobs': None}\n")
    files = ("gap.py", "net.py", "data.py")
    plain, own = {"distill": {"csf": {}}}, {"distill": {"gap": {}}}
    assert config(tmp_path, *files, **plain).key == config(tmp_path, **plain).key
    assert config(tmp_path, *files, distill={"gap": {"weight": 0.0}}).used_plugins == ()
    assert config(tmp_path, *files, **own).key == config(tmp_path, "gap.py", **own).key != config(tmp_path, **own).key
    for section, file in (
        ({"student": {"name": "net"}}, "net.py"),
        ({"teacher": {"name": "net", "train": {}}}, "net.py"),
        ({"data": {"name": "blobs"}}, "data.py"),
    ):
        assert [plugin.name for plugin in config(tmp_path, *files, **section).used_plugins] == [file]


def test_the_text_of_a_file_is_its_identity_and_not_its_name(tmp_path: Path) -> None:
    written(tmp_path, gap=DISTILLER, same=DISTILLER, changed=f"{DISTILLER}# a comment\n")
    own = {"distill": {"gap": {}}}
    keys = [config(tmp_path, f"{name}.py", **own).key for name in ("gap", "same", "changed")]
    assert keys[0] == keys[1] != keys[2]


def test_a_config_travels_with_the_text_and_is_recorded_without_it(tmp_path: Path) -> None:
    written(tmp_path, gap=DISTILLER, net="MODELS = {'net': None}\n")
    asked = config(tmp_path, "net.py", "gap.py", distill={"gap": {}})
    whole, recorded = parse(asked.whole()), parse(asked.model_dump(mode="json"))
    assert whole.key == recorded.key == asked.key
    assert [plugin.source for plugin in whole.plugins] == [DISTILLER]
    assert [plugin.source for plugin in recorded.plugins] == [""]
    assert with_plugins(asked.whole(), tmp_path / "elsewhere") == asked.whole(), "records need no file"


def test_a_text_that_was_edited_in_a_record_is_refused(tmp_path: Path) -> None:
    plain = read_plugin("gap.py", written(tmp_path, gap=DISTILLER)).plain(whole=True)
    with pytest.raises(UserError, match=r"gap.py is not the text that its sha256 names; give the file itself"):
        parse({"plugins": [{**plain, "source": "DISTILLERS = {'gap': 1}\n"}]})
