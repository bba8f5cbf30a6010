"""The command line: a wrong one is told without the passwords and control characters in it; how a command ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest


@pytest.mark.parametrize(
    "words",
    [
        ["http://u:hunter2@h"],
        ["predict", "a.pt", "b", "--out", "x", "http://u:hunter2@h/\x1b[31m"],
        ["data", "u:hunter2@h:/x"],
        ["data", "check", "camvid", "/x", "u:hunter2@h:/x"],
    ],
)
def test_a_wrong_argument_is_repeated_without_its_password(words: list[str], command: Callable[..., tuple]) -> None:
    code, said, errors = command(*words)
    assert (code, said) == (2, "")
    assert "***@h" in errors
    assert "hunter2" not in errors
    assert "\x1b[31m" not in errors


CYCLE = """
import atexit, sys
from trainer.cli import prepare_process

class Cycle:
    def __init__(self):
        self.itself = self
    def __del__(self):
        print("collected", flush=True)

if sys.argv[1] == "prepared":
    prepare_process()
atexit.register(print, "handlers of others")
Cycle()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "said"), [("prepared", ""), ("plain", "collected\n")])
def test_a_command_ends_without_a_collection_of_garbage(kind: str, said: str) -> None:
    ran = subprocess.run([sys.executable, "-c", CYCLE, kind], capture_output=True, text=True, check=True, timeout=120)
    assert ran.stdout == f"handlers of others\n{said}"
