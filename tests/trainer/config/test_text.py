"""Texts: passwords are masked wherever they stand, control characters written out, and every foreign exception's text
goes through message_of()."""

import ast
from pathlib import Path

import pytest

from trainer.config import check_name, masked, message_of, printable
from trainer.files.failure import failure_of

ROOT = Path(__file__).parents[3]
OWN = {"UserError", "SpecError", "DamagedError", "ValidationError", "NumericalError", "StoreFull", "RayLost"}
"""Errors whose text is ours."""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        # user and password of an address, whatever stands in them
        ("http://u:hunter2@127.0.0.1:9/api", "http://***@127.0.0.1:9/api"),
        ("http:/u:hunter2@h", "http:/***@h"),
        ("http:u:hunter2@h", "http:***@h"),
        ("//u:hunter2@h/x", "//***@h/x"),
        ("u:hunter2@h:/x", "***@h:/x"),
        ("netloc 'u:hunter2@h:5000'", "netloc '***@h:5000'"),
        ("postgresql+psycopg2://me:hunter2@b@host/db", "postgresql+psycopg2://***@host/db"),
        ("mysql://me:a/b?c#hunter2@host/db", "mysql://***@host/db"),
        ("no 'http://u:hunter2@h' (http://u:hunter2@h)", "no 'http://***@h' (http://***@h)"),
        ("http://u:it's-hunter2@h:9", "http://***@h:9"),
        ('http://u:a"hunter2@h:9', "http://***@h:9"),
        ("http://u:a hunter2@h:9", "http://***@h:9"),
        ("http://me@corp.com:hunter2@h", "http://***@h"),
        ("redis://:hunter2@h", "redis://***@h"),
        # tokens as user or host
        ("https://hunter2@host/x", "https://***@host/x"),
        ("https://hunter2:x-oauth-basic@host/x", "https://***@host/x"),
        ("address: 'hunter2@h:6379'", "address: '***@h:6379'"),
        ("databricks://hunter2", "databricks://***"),
        # named values of addresses
        ("http://h/x?token=hunter2&a=1", "http://h/x?token=***&a=1"),
        ("url: /x?a=1&key=hunter2 (refused)", "url: /x?a=1&key=*** (refused)"),
        ("http://h/?code=hunter2", "http://h/?code=***"),
        ("http://h/?pass=hunter2#auth=hunter2", "http://h/?pass=***"),
        ("X-Amz-Signature=hunter2&pw=it's-hunter2", "X-Amz-Signature=***&pw=***"),
        # settings, in any notation
        ("password='hunter2', user='u'", "password='***', user='u'"),
        ("{'password': 'a hunter2', 'user': 'u'}", "{'password': '***', 'user': 'u'}"),
        ('{"api_key": "hunter2"}', '{"api_key": "***"}'),
        ('"{\\"password\\": \\"hunter2\\"}"', '"{\\"password\\": \\"***\\"}"'),
        ("('secret', 'hunter2')", "('secret', '***')"),
        ("(PGPASSWORD=a,b)c-hunter2)", "(PGPASSWORD=***)"),
        ("password: hunter2", "password: ***"),
        ("<password>hunter2</password>", "<password>***</password>"),
        ("mlflow --token hunter2 --port 1", "mlflow --token *** --port 1"),
        ("AccountKey=hunter2;Name=x", "AccountKey=***;Name=x"),
        # headers
        ("Authorization: Bearer hunter2", "Authorization: Bearer ***"),
        ("authorization: token hunter2", "authorization: token ***"),
        ("{b'Authorization': b'Basic hunter2'}", "{b'Authorization': b'Basic ***'}"),
        ("Authorization: hunter2", "Authorization: ***"),
        ("X-Api-Key: hunter2", "X-Api-Key: ***"),
        # sentences
        ("Password hunter2 is too short", "Password *** is too short"),
        ("the password for user me is hunter2!", "the password for user me is ***"),
        ("access token 'a hunter2' has expired", "access token '***' has expired"),
        ("invalid API key `hunter2`, secret hunter2", "invalid API key `***`, secret ***"),
        ("Cookie: session=hunter2", "Cookie: session=***"),
    ],
)
def test_passwords_are_masked(text, told):
    assert masked(text) == told
    assert "hunter2" not in message_of(ValueError(text))
    assert "hunter2" not in failure_of(ValueError(text)).reason


@pytest.mark.parametrize(
    "text",
    [
        "http://host:5000/a?sslmode=require",
        "sqlite:////data/mlflow.db",
        "write to me@example.com, or to git@github.com:x/y",
        "s3://bucket/x@y, models:/student@champion, rayproject/ray:2.9@sha256:abc",
        "found character '%' that cannot start any token",
        'unrecognized token: "x"; backbone.cls_token: (1, 1, 32)',
        "a basic question: exit code=1, key=lambda x: x, bypass=1, password=None, the key: value",
        "arm 'a @ b', @SUM(A1)",
        "unknown key 'password'; known: user",
        "password authentication failed for user 'me'; Password must have 12 characters, token 17 of 20",
        "Unexpected token '<' in JSON; the secret of arm x2",
    ],
)
def test_harmless_text_stays(text):
    assert masked(text) == text


def test_the_environment_s_passwords_are_masked_without_their_address(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://u:hunter2%21@host")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken-of-mine")
    monkeypatch.setenv("HTTPS_PROXY", "http://pr0xy-of-mine@host")
    monkeypatch.setenv("WANDB_API_KEY", "k3y-of-mine")
    monkeypatch.setenv("SOME_TOKEN", "port")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "sw/rd f?sh")
    assert masked("port 'hunter2!' hunter2%21 t0ken-of-mine") == "port '***' *** ***"
    assert masked("pr0xy-of-mine k3y-of-mine") == "*** ***"
    assert masked("sw/rd f?sh, as sw%2Frd%20f%3Fsh") == "***, as ***"


def test_control_characters_are_written_out():
    assert printable("a\x1b[31m\r\nb\u202e\x9b\udcff") == "a\\x1b[31m\\r\\nb\\u202e\\x9b\\udcff"
    assert printable("größe 模型 ±") == "größe 模型 ±"
    assert message_of(OSError("a\n  b\x1b[2J")) == "a b\\x1b[2J"


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\x1b[31m", "a\u2028b", "\u202eb", "x" * 201])
def test_names_that_no_table_can_show(name):
    with pytest.raises(ValueError, match="a name m"):
        check_name(name)


@pytest.mark.parametrize(
    "name",
    [
        " a",
        "a ",
        "\u3000a",
        "a\u00a0b",
        "a\u200bb",
        "\u2800",
        "\u3164",
        "a\u00ad",
        "\ufe0f",
        "\u180e",
        "\U000e0041",
        "\ue000",
        "e\u0301",
        "\u0301e",
        "\u212b",
    ],
)
def test_names_that_no_eye_can_tell_apart(name):
    with pytest.raises(ValueError, match=r"a name m.*but got '.*'"):
        check_name(name)
    assert check_name(name, recorded=True) == name


@pytest.mark.parametrize("name", ["größe 模型 ±", "TransKD-Base (α=0.5)", "+ CSF", "العربية", "हिन्दी", "a  b", "😀"])
def test_names_in_any_script_are_names(name):
    assert check_name(name) == name


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


@pytest.mark.slow
def test_every_text_of_a_foreign_exception_goes_through_one_place():
    found = [
        f"{file.relative_to(ROOT)}:{line}"
        for package in ("trainer", "ablations", "cluster", "orchestrator")
        for file in (ROOT / package).rglob("*.py")
        for line in foreign_texts(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert not found, f"write message_of(error) in {found}"
