"""Texts: passwords are masked wherever they stand, control characters written out, and every foreign exception's text
goes through message_of()."""

import ast
from pathlib import Path

import pytest

from trainer.config import check_name, masked, message_of, printable
from trainer.files.failure import failure_of

ROOT = Path(__file__).parents[3]
OWN = {"UserError", "SpecError", "DamagedError", "ValidationError", "NumericalError", "StoreFull"}
"""Errors whose text is ours."""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("http://u:hunter2@127.0.0.1:9/api", "http://u:***@127.0.0.1:9/api"),
        ("http:/u:hunter2@h", "http:/u:***@h"),
        ("postgresql+psycopg2://me:hunter2@b@host/db", "postgresql+psycopg2://me:***@host/db"),
        ("no 'http://u:hunter2@h' (http://u:hunter2@h)", "no 'http://u:***@h' (http://u:***@h)"),
        ("https://hunter2@host/x", "https://***@host/x"),
        ("http://h/x?token=hunter2&a=1", "http://h/x?token=***&a=1"),
        ("password='hunter2', user='u'", "password='***', user='u'"),
        ('{"api_key": "hunter2"}', '{"api_key": "***"}'),
        ("Authorization: Bearer hunter2", "Authorization: Bearer ***"),
        ("http://host:5000/a", "http://host:5000/a"),
        ("sqlite:////data/mlflow.db", "sqlite:////data/mlflow.db"),
    ],
)
def test_passwords_are_masked(text, told):
    assert masked(text) == told
    assert "hunter2" not in message_of(ValueError(text))
    assert "hunter2" not in failure_of(ValueError(text)).reason


def test_the_environment_s_passwords_are_masked_without_their_address(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://u:hunter2%21@host")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken-of-mine")
    assert masked("port 'hunter2!' hunter2%21 t0ken-of-mine") == "port '***' *** ***"


def test_control_characters_are_written_out():
    assert printable("a\x1b[31m\r\nb\u202e\x9b\udcff") == "a\\x1b[31m\\r\\nb\\u202e\\x9b\\udcff"
    assert printable("größe 模型 ±") == "größe 模型 ±"
    assert message_of(OSError("a\n  b\x1b[2J")) == "a b\\x1b[2J"


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\x1b[31m", "a\u2028b", "\u202eb", "x" * 201])
def test_names_that_no_table_can_show(name):
    with pytest.raises(ValueError, match="a name m"):
        check_name(name)


def foreign_texts(tree):
    """Lines where an exception that is not ours becomes text without message_of()."""
    for handler in (node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and node.name):
        kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
        if all(ast.unparse(kind).split(".")[-1] in OWN for kind in kinds if not isinstance(kind, ast.Starred)):
            continue
        for node in ast.walk(handler):
            shown = isinstance(node, ast.FormattedValue) or (
                isinstance(node, ast.Call) and ast.unparse(node.func) in ("str", "repr")
            )
            inner = node.value if isinstance(node, ast.FormattedValue) else (node.args or [None])[0] if shown else None
            if isinstance(inner, ast.Name) and inner.id == handler.name:
                yield node.lineno


def test_every_text_of_a_foreign_exception_goes_through_one_place():
    found = [
        f"{file.relative_to(ROOT)}:{line}"
        for package in ("trainer", "ablations", "cluster", "orchestrator")
        for file in (ROOT / package).rglob("*.py")
        for line in foreign_texts(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert not found, f"write message_of(error) in {found}"
