"""Where a command may write: told before anything is read."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainer.config import UserError
from trainer.config.input_files import check_output

COMMANDS: list[tuple[str, ...]] = [
    ("data", "init", "{root}", "--out"),
    ("data", "show", "scenes", "--out"),
    ("eval", "{root}/last.pt", "--json"),
    ("export", "{root}/last.pt", "--out"),
    ("predict", "{root}/last.pt", "{root}", "--out"),
    ("fit", "{root}/run.yaml", "--out"),
]


@pytest.mark.slow
@pytest.mark.parametrize("arguments", COMMANDS, ids=[" ".join(arguments[:2]) for arguments in COMMANDS])
def test_an_output_below_a_file_is_refused_at_once(
    arguments: tuple[str, ...], command: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "run.yaml").write_text("student: {name: segformer_tiny}\n", encoding="utf-8")
    (tmp_path / "note").write_text("mine\n", encoding="utf-8")
    option = arguments[-1]
    given = [part.format(root=tmp_path) for part in arguments]
    code, _, err = command(*given, tmp_path / "note" / "more" / "x.yaml")
    assert code == 2
    assert f"{option} {tmp_path}/note/more/x.yaml" in err
    assert err.endswith(f": {tmp_path}/note is a file, in which nothing can be written; name another place\n")


def test_missing_folders_will_be_made(tmp_path: Path) -> None:
    check_output("--out", tmp_path / "a" / "b" / "x.yaml", [])
    assert not (tmp_path / "a").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(UserError, match=f"^--out .*: you may not write in the folder {tmp_path}; name another place$"):
        check_output("--out", tmp_path / "a" / "x.yaml", [])
