"""The command line: a wrong one is told without the passwords and control characters in it."""

from __future__ import annotations

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
