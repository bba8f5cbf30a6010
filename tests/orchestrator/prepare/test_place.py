"""What a cluster spec says of compiling and of repetition reaches every run, or is refused before anything is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablations.study.schema import load
from cluster.spec import ClusterSpec
from orchestrator.launch import Launch
from orchestrator.prepare.jobs import Preparer
from orchestrator.store.folder import Store
from trainer.config import UserError, parse


@pytest.mark.parametrize("field", ["compile", "deterministic"])
def test_every_run_gets_what_the_spec_says(field: str, tmp_path: Path) -> None:
    for value in (False, True):
        preparer = Preparer("study", ClusterSpec.model_validate({field: value}), Store(tmp_path), {})
        assert getattr(preparer.place(parse({})), field) is value


def test_a_machine_that_cannot_compile_is_refused_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    said: list[str] = []
    launch = Launch(load("demo"), ClusterSpec(compile=True), Store(tmp_path), {})
    with pytest.raises(UserError, match=r"^compile on cpu needs a C\+\+ compiler, but CXX is 'no-such-compiler'"):
        launch.prepare(said.append)
    assert not said
