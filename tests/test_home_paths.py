"""`~` is the home folder in every path that a user can give: arguments, options, YAML, environment variables."""

import os
import re
import typing
from pathlib import Path

import pytest
import typer.main
from pydantic import BaseModel, TypeAdapter

import trainer.cli
from ablations.study.schema import Study
from cluster.spec import ClusterSpec
from cluster.spec_file import load
from orchestrator import cli
from orchestrator.store.folder import Store, resolve
from trainer.config import FilePath, TrainConfig, parse
from trainer.place import default_cache

APPS = {"transkd": cli.app, "python -m trainer": trainer.cli.app}
TEXTS = {"Path", "str"}
PATH_LIKE = re.compile(r"init|checkpoint|store|(.*_)?(path|file|folder|dir|root)s?")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return str(tmp_path)


def leaves(command, words=()):
    """(words, command) of each command of a group and of the groups in it."""
    for name, child in getattr(command, "commands", {}).items():
        yield from leaves(child, (*words, name))
    if not hasattr(command, "commands"):
        yield words, command


def texts(command):
    """The parameters that take a text or a path, one or several."""
    hints = typing.get_type_hints(command.callback)
    return [p for p in command.params if p.name in hints and TEXTS & set(re.findall(r"\w+", str(hints[p.name])))]


def forms(parameter):
    """How `~/x` may be written for a parameter, and what it is read as after the home folder's name."""
    if parameter.param_type_name == "argument":
        return [(["~/x"], "x")]
    option = parameter.opts[0]
    own = [([option, "~/x"], "x"), ([f"{option}=~/x"], "x"), ([f"{option}=~"], "")]
    return [*own, ([option, "a=~/x"], "x"), ([f"{option}=a=~/x"], "x")]


@pytest.mark.parametrize("name", APPS)
def test_every_argument_and_option(name, home):
    group, given, seen = typer.main.get_command(APPS[name]), {}, set()
    for words, command in leaves(group):
        parameters = texts(command)
        command.callback = given.update
        for parameter in parameters:
            for asked, read in forms(parameter):
                line = list(words)
                for other in command.params:
                    if other is parameter:
                        line += asked
                    elif other.required:
                        line += ["8"] if other.param_type_name == "argument" else [other.opts[0], "8"]
                group.main(line, standalone_mode=False)
                value = given[parameter.name]
                found = str(value[0] if isinstance(value, list | tuple) else value)
                assert found.removeprefix("a=") == str(Path(home, read)), line
            seen.add(parameter.name)
    assert seen >= {"checkpoint", "config", "data_root", "out", "set_", "json_", "root", "images", "option"}


@pytest.mark.parametrize(
    "argument", ["teacher=~", "--set=teacher=~", "/a/~b", "~nobody.is.called.so/x", "a~/x", "--set=a=1~/2"]
)
def test_other_tildes_stay(argument):
    assert trainer.cli.argument_with_home(argument) == argument


def fields(model, seen):
    """(name, type) of the fields of a pydantic model and of all models in it."""
    if model in seen:
        return
    seen.add(model)
    for name, field in model.model_fields.items():
        yield name, typing.get_type_hints(model, include_extras=True)[name]
        parts = [field.annotation]
        for part in parts:
            parts += typing.get_args(part)
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from fields(part, seen)


def notes(kind):
    """What stands beside the types of an annotation in `Annotated`, at any depth."""
    return [*getattr(kind, "__metadata__", ()), *(note for part in typing.get_args(kind) for note in notes(part))]


def test_every_path_of_a_yaml_file(home):
    found = [pair for model in (TrainConfig, Study, ClusterSpec) for pair in fields(model, set())]
    paths = [name for name, kind in found if FilePath.__metadata__[0] in notes(kind)]
    assert paths == [name for name, kind in found if PATH_LIKE.fullmatch(name) and "str" in str(kind)]
    assert paths == ["init", "checkpoint", "init", "store", "data_roots"]
    assert TypeAdapter(FilePath).validate_python("~/x") == f"{home}/x"


def test_a_run_is_the_same_by_either_spelling(home):
    one, other = (
        parse(
            {
                "student": {"init": f"{folder}/s.pt"},
                "teacher": {"name": "segformer_b2", "checkpoint": f"{folder}/t.pt"},
            }
        )
        for folder in ("~", home)
    )
    assert one == other
    assert one.key == other.key
    assert one.student.init == f"{home}/s.pt"


def test_a_spec_and_the_environment(home, tmp_path, monkeypatch):
    (tmp_path / "spec.yaml").write_text("store: ~/store\ndata_roots: {camvid: ~/camvid}\n", encoding="utf-8")
    spec = load("~/spec.yaml")
    assert (spec.store, spec.data_roots) == (f"{home}/store", {"camvid": f"{home}/camvid"})
    for name in ("TRANSKD_CACHE", "TRANSKD_STORE", "RAY_TMPDIR", "TMPDIR"):
        monkeypatch.setenv(name, "~/elsewhere")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///~/runs.db")
    assert default_cache() == resolve() == Path(home) / "elsewhere"
    assert Store(resolve()).mlflow_uri == f"sqlite:///{home}/runs.db"
    trainer.cli.prepare_process()
    assert os.environ["RAY_TMPDIR"] == os.environ["TMPDIR"] == f"{home}/elsewhere"
