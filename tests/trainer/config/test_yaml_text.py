"""YAML: what its versions read differently is refused, bounds hold within a second, and `1e-3` is a number on a command
line."""

import time

import pytest

from trainer.config import UserError, parse_argument, parse_yaml, read_yaml


def refused(text):
    started = time.process_time()
    with pytest.raises(UserError) as error:
        parse_yaml(text, "a.yaml")
    assert time.process_time() - started < 3
    said = str(error.value)
    assert said.startswith("a.yaml") and "\n" not in said and len(said) < 600
    return said


@pytest.mark.parametrize("text", ["010", "001", "00", "-07", "0o17", "0b11", "1_000", "0x1_F", "1:30", "190:20:30.5"])
def test_digits_that_versions_read_differently_are_refused(text):
    for place in (f"x:\n  y: {text}", f"x:\n  y: [1, {text}]", f"x:\n  {text}: y"):
        said = refused(place)
        assert f"line 2: x.y{'.1' if '[' in place else ''}: '{text}'" in said or f"line 2: x: '{text}'" in said
        assert "without leading zeros" in said
    assert parse_yaml(f"x: '{text}'", "a.yaml") == {"x": text}


@pytest.mark.parametrize("text", ["yes", "No", "ON", "off"])
def test_words_that_versions_read_differently_are_refused(text):
    assert f"line 1: x: '{text}' is read differently" in refused(f"x: {text}")
    assert f"line 1: variants: '{text}' is read differently" in refused(f"variants: {{{text}: 1}}")
    assert parse_yaml(f'"{text}": "{text}"', "a.yaml") == {text: text}


def test_a_sign_to_merge_is_no_value():
    for text in ("x:\n  y: <<", "x:\n  y: [1, <<]"):
        assert "'<<' is YAML's sign to merge a mapping; put it in quotes" in refused(text)
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, y: '<<'}", "a.yaml")["b"] == {"x": 1, "y": "<<"}


def test_a_control_character_is_told_with_its_line():
    assert refused('a: 1\r\nb: 2\n\nc: "\x1b[31m"') == (
        'a.yaml is not valid YAML: line 4 holds the character \\x1b; remove it, or write "\\x1b"'
    )


def test_dates_are_text():
    text = "{name: 2024-13-45, other: 2024-01-02, when: 2024-01-02 10:00:00, at: 10.0.0.1:6379, n: y, eq: =}"
    found = parse_yaml(text, "a.yaml")
    assert found["name"] == "2024-13-45" and all(isinstance(value, str) for value in found.values())


def test_plain_values_are_what_they_seem():
    assert parse_yaml("[1, -2, +3, 0, 0x1f, 1.5, .5, 5., 1.0e-3, true, False, null, ~, ]", "a.yaml") == [
        *(1, -2, 3, 0, 31, 1.5, 0.5, 5.0, 0.001, True, False, None, None)
    ]
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}", "a.yaml") == {"a": {"x": 1}, "b": {"x": 1, "y": 2}}


@pytest.mark.parametrize("key", ["1", "1.5", "true", "~", "[a]"])
def test_keys_are_text(key):
    assert "a key must be text" in refused(f"? {key}\n: 1")


BOMB = "a: &a [1, 2, 3, 4, 5, 6, 7, 8, 9]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BOMB, "values are read, aliases written out"),
        ("x: [" + "a, " * 30_000 + "]", "values are read"),
        ("[" * 3000, "levels of nesting"),
        ("[" * 90_000, "levels of nesting"),
        ("".join("  " * level + "a:\n" for level in range(200)), "levels of nesting"),
        ("- " * 3000, "levels of nesting"),
        ("a0: &a0 [x]\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n}]\n" for n in range(500)), "levels of nesting"),
        ("a: &a [*a]", "line 1: a.0: the alias *a stands in what it names"),
        ("&a\nb: {c: *a}", "line 2: b.c: the alias *a stands in what it names"),
        ("a: !!int many", "line 1: the tag 'tag:yaml.org,2002:int' is not read"),
        ("a: !!timestamp x", "tag"),
        ("a: !!python/object:os.system x", "tag"),
        (f"a: {'9' * 5000}", "line 1: a: a whole number must fit into 64 bits"),
        (f"a: -{2**63}", "64 bits"),
        ("#" * 200_000, "a YAML text may have 100,000 characters, but it has 200,000"),
        ("a: 1\nb: 2\na: 3", "line 3: key 'a' is written twice"),
        ("a: \x00", "is not valid YAML"),
        ("a: 1\n---\nb: 2", "is not valid YAML"),
    ],
    ids=lambda value: value[:12],
)
def test_bounds(text, why):
    assert why in refused(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("1e-3", 0.001), ("1E5", 100_000.0), ("-2e+1", -20.0), (".5e1", 5.0), ("0.001", 0.001), ("3", 3)),
        *(("[1e-1, 2]", [0.1, 2]), ("{weight: 1e-1}", {"weight": 0.1}), ("'1e-3'", "1e-3"), ("null", None), ("", None)),
    ],
)
def test_an_argument_on_a_command_line(text, value):
    assert parse_argument(f"optim.lr={text}", "--set", "PATH=VALUE") == ("optim.lr", value)


@pytest.mark.parametrize("text", ["optim.lr", "=1", "a=010", "a=yes", "a=[", "a=!!int x"])
def test_an_argument_that_is_refused(text):
    with pytest.raises(UserError, match=r"^--set"):
        parse_argument(text, "--set", "PATH=VALUE")


def test_files_are_utf_8_with_or_without_a_byte_order_mark(tmp_path):
    file = tmp_path / "a.yaml"
    for encoding in ("utf-8", "utf-8-sig"):
        file.write_bytes("größe: 模型\r\n".encode(encoding))
        assert read_yaml(file) == {"größe": "模型"}
    file.write_bytes("a: 1\ngröße: 1\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"a\.yaml: line 2 is not text in UTF-8 \(byte 0xf6\); save the file as UTF-8$"):
        read_yaml(file)
