"""Plain data: configs as YAML, as JSON to hash, and with dotted paths replaced."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.config.errors import UserError, unknown
from trainer.config.yaml_text import parse_yaml


def digest(value: Any) -> str:
    """12 hex digits of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def override(data: Mapping[str, Any], overrides: Mapping[str, Any], *, absent_ok: bool = False) -> dict[str, Any]:
    """A config's plain data with dotted paths replaced; shorter paths first, so their order does not matter.

    A value replaces what was there, whole mappings too. `None` removes a path of `distill` or an option, and
    elsewhere it is the value. Removing what is not there is an error, for in a variant it is a typo, unless
    `absent_ok`: there it is the "off" of a factor. Keys are checked when the result becomes a TrainConfig.
    """
    result = copy.deepcopy(dict(data))
    for path in sorted(overrides, key=lambda path: path.count(".")):
        _assign(result, path, overrides[path], absent_ok)
    return result


def _assign(data: dict[str, Any], path: str, value: Any, absent_ok: bool) -> None:
    *sections, last = path.split(".")
    for depth, section in enumerate(sections):
        # A weight for a path that is not there would switch the path on: an arm nobody asked for.
        if depth == 1 and sections[0] == "distill" and section not in data:
            raise UserError(f"{path}: {unknown('knowledge path', section, data)}")
        if data.get(section) is None:
            data[section] = {}
        data = data[section]
        if not isinstance(data, dict):
            raise UserError(f"{path}: {'.'.join(sections[: depth + 1])} has no keys, for it is {data!r}")
    if value is not None or not removable(path):
        data[last] = copy.deepcopy(value)  # a later path may write into it, and the study keeps its own
    elif last in data:
        del data[last]
    elif not absent_ok:
        raise UserError(f"{path}: nothing to remove; {unknown('key', last, data)}")


def removable(path: str) -> bool:
    """Whether `None` removes what the path names: a path of `distill` or an option, for both are open mappings."""
    parts = path.split(".")
    return len(parts) > 1 and (parts[:-1] == ["distill"] or parts[-2] == "options")


def read_yaml(path: Path) -> Any:
    """The plain data of a YAML file. Raises UserError when it is missing or is not YAML."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; give a YAML file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    return parse_yaml(text, str(path))
