"""parse_yaml(): the subset of YAML that every version reads alike, within bounds; what else is written is refused."""

from __future__ import annotations

import re
from typing import Any

import yaml

from trainer.config.errors import UserError, shown
from trainer.config.text import message_of

MAX_CHARACTERS = 100_000
"""The longest text that is read: PyYAML needs a second for it."""
MAX_NODES = 5_000
"""Most values of a text, keys included. A part that aliases repeat counts each time."""
MAX_DEPTH = 40
"""Most levels of nesting."""
LONGEST = 20
"""Of a whole number, in characters; Python refuses to read very long ones."""
LARGEST = 2**63 - 1
"""The largest whole number: ledgers, tables and databases hold 64 bits."""

_MERGE = "tag:yaml.org,2002:merge"
_INT = "tag:yaml.org,2002:int"
_PLAIN = "put it in quotes where a name is meant"
_MISREAD = {
    "!digits": f"write a number in decimal digits without leading zeros, underscores and colons, or {_PLAIN}",
    "!word": f"write true or false, or {_PLAIN}",
}
"""Tag of what YAML 1.1 and 1.2 read differently -> the remedy."""


class _Loader(yaml.SafeLoader):
    """Refuses duplicate keys (PyYAML keeps the last one silently, so an arm of a study would be lost), keys that are
    not text, tags, and values that YAML 1.1 and 1.2 read differently. Dates are text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._path: list[str] = []
        self._extents: dict[int, tuple[int, int]] = {}
        """By the identity of a whole node: its number of values, and its levels."""

    def fetch_flow_collection_start(self, token: Any) -> None:
        self._check_bounds(self.line, 0, self.flow_level)  # the scanner runs a thousand characters ahead
        super().fetch_flow_collection_start(token)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        event = self.peek_event()
        line = event.start_mark.line
        if getattr(event, "tag", None) is not None:
            raise self._refusal(line, f"the tag {event.tag!r} is not read; write the value without a tag")
        self._path.append(str(index.value if isinstance(index, yaml.ScalarNode) else index))
        self._check_bounds(line, len(self._extents), len(self._path))
        node = super().compose_node(parent, index)
        assert node is not None  # there is an event
        if id(node) not in self._extents:
            if isinstance(event, yaml.AliasEvent):
                raise self._refusal(line, f"the alias *{event.anchor} stands in what it names; write it out")
            if isinstance(node, yaml.ScalarNode):
                self._check_scalar(node, line, key=isinstance(parent, yaml.MappingNode) and index is None)
            inside = [self._extents[id(part)] for part in _parts(node)]
            extent = (1 + sum(size for size, _ in inside), 1 + max((levels for _, levels in inside), default=0))
            self._extents[id(node)] = extent
        size, levels = self._extents[id(node)]
        self._path.pop()
        self._check_bounds(line, size, len(self._path) + levels)
        return node

    def _check_scalar(self, node: yaml.ScalarNode, line: int, *, key: bool) -> None:
        text = node.value
        if node.tag == _MERGE and not key:
            raise self._refusal(line, f"{shown(text)} is YAML's sign to merge a mapping; {_PLAIN}")
        if node.tag in _MISREAD:
            raise self._refusal(line, f"{shown(text)} is read differently by YAML 1.1 and 1.2; {_MISREAD[node.tag]}")
        if node.tag == _INT and (len(text) > LONGEST or abs(int(text, 16 if "x" in text else 10)) > LARGEST):
            raise self._refusal(line, f"a whole number must fit into 64 bits but got {shown(text)}")

    def _refusal(self, line: int, why: str) -> UserError:
        where = ".".join(part for part in self._path if part != "None")
        return UserError(f"line {line + 1}: {f'{where}: ' if where else ''}{why}")

    def _check_bounds(self, line: int, values: int, levels: int) -> None:
        if values > MAX_NODES:
            raise self._refusal(line, f"at most {MAX_NODES:,} values are read, aliases written out; write fewer")
        if levels > MAX_DEPTH:
            raise UserError(f"line {line + 1}: at most {MAX_DEPTH} levels of nesting are read; write fewer")

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[str] = set()
        for key_node, _ in node.value:
            if key_node.tag == _MERGE:
                continue
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise UserError(f"line {line}: a key must be text but got {shown(key)}; put it in quotes")
            if key in keys:
                raise UserError(f"line {line}: key '{key}' is written twice; keep one")
            keys.add(key)
        return super().construct_mapping(node, deep)


def _parts(node: yaml.Node) -> list[yaml.Node]:
    """The nodes directly inside a sequence or mapping."""
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


_Loader.yaml_implicit_resolvers = {}  # none of PyYAML's, which are those of YAML 1.1
for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:null", r"^(~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", r"^(true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    (_MERGE, r"^<<$", ["<"]),
    ("!word", r"^(yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF)$", list("yYnNoO")),
    (_INT, r"^[-+]?(0|[1-9][0-9]*|0x[0-9a-fA-F]+)$", list("-+0123456789")),
    (
        "tag:yaml.org,2002:float",
        r"^[-+]?(([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+][0-9]+)?|\.(inf|Inf|INF))$|^\.(nan|NaN|NAN)$",
        list("-+.0123456789"),
    ),
    (
        "!digits",
        r"^[-+]?(0[0-9]+|0b[01_]+|0o[0-7]+|0x[0-9a-fA-F_]+|[0-9]*_[0-9_]*(\.[0-9_]*)?|[0-9_]+(:[0-5]?[0-9])+(\.[0-9_]*)?)$",
        list("-+0123456789"),
    ),
):
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), _first)


class _ArgumentLoader(_Loader):
    """Reads `1e-3` as a number, which files must write as 1.0e-3 because other YAML readers take it as text."""


_ArgumentLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"), list("-+.0123456789")
)


def parse_yaml(text: str, where: str) -> Any:
    """The plain data of a YAML text: mappings with text as keys, lists, text, numbers, truth values, None.

    Raises UserError naming `where` and the line for what is not YAML, is read differently by its versions, or is beyond
    the bounds.
    """
    return _parse(text, where, _Loader)


def parse_argument(text: str, option: str, form: str) -> tuple[str, Any]:
    """Name and value of a command line's `OPTION NAME=VALUE`. Raises UserError as `parse_yaml` does, and where it has
    not the `form`: `NAME=VALUE, for example aug=true`."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UserError(f"{option} needs {form}, but got {shown(text)}")
    return name, _parse(value, f"{option} {name}", _ArgumentLoader)


def _parse(text: str, where: str, loader: type[_Loader]) -> Any:
    if len(text) > MAX_CHARACTERS:
        raise UserError(f"{where}: a YAML text may have {MAX_CHARACTERS:,} characters, but it has {len(text):,}")
    try:
        return yaml.load(text, loader)
    except yaml.reader.ReaderError as error:
        found = ascii(text[error.position])[1:-1]
        line = len(re.split(r"\r\n|[\r\n\x85\u2028\u2029]", text[: error.position]))
        raise UserError(
            f'{where} is not valid YAML: line {line} holds the character {found}; remove it, or write "{found}"'
        ) from None
    except yaml.YAMLError as error:
        raise UserError(f"{where} is not valid YAML: {message_of(error)}") from None
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
