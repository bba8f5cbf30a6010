"""Configs as plain data: read from YAML, hashed as JSON, changed at dotted paths."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.config.errors import UserError, unknown
from trainer.config.input_files import check_regular
from trainer.config.masking import masked
from trainer.config.named_steps import assign_step
from trainer.config.yaml_text import parse_yaml

MAX_BYTES = 64 * 2**20
"""The longest text file: a list of a million images is shorter."""

_NAMED = {"distill": "knowledge path", "loss": "task loss"}
"""Sections whose keys are names that a user chooses, and what these name."""


def digest(value: Any) -> str:
    """12 hex digits of the sha256 of a JSON value; the order of keys does not matter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def refuse_secrets(data: Any, path: str = "") -> None:
    """Raise UserError where a value of a config is a password or token: a config is copied into run folders, ledger,
    MLflow, reports and bundles as it is, because ids are made of it."""
    if isinstance(data, Mapping | list):
        for name, value in data.items() if isinstance(data, Mapping) else enumerate(data):
            refuse_secrets(value, f"{path}.{name}".lstrip("."))
    elif isinstance(data, str) and masked(text := f"{path.rpartition('.')[2]}={data}") != text:
        raise UserError(
            f"{path} must hold no password or token, because configs are copied into ledger, MLflow and bundles, but "
            f"got {masked(text).partition('=')[2]}; let the code that needs it read it from an environment variable"
        )


def override(data: Mapping[str, Any], overrides: Mapping[str, Any], *, absent_ok: bool = False) -> dict[str, Any]:
    """A copy of a config's plain data with the values at dotted paths replaced, shorter paths first.

    A value replaces the old one as a whole, also a mapping. `None` removes a knowledge path, a task loss, a step of
    augmentation or an option, and is an ordinary value elsewhere. Raises UserError for removing an absent key, which in
    a variant is a typo, unless `absent_ok`, for the level "off" of a factor. Unknown keys are found when the result
    becomes a TrainConfig.
    """
    result = copy.deepcopy(dict(data))
    for path in sorted(overrides, key=lambda path: path.count(".")):
        _assign(result, path, overrides[path], absent_ok)
    return result


def _assign(data: dict[str, Any], path: str, value: Any, absent_ok: bool) -> None:
    if path == "recipe":
        raise UserError(
            "recipe: it is written in the base, and a change names single settings; write those that differ"
        )
    *sections, last = path.split(".")
    for depth, section in enumerate(sections):
        # Setting `distill.pea.weight` without a path `pea` would add the path: an arm that nobody asked for.
        if depth == 1 and sections[0] in _NAMED and section not in data:
            raise UserError(f"{path}: {unknown(_NAMED[sections[0]], section, data)}")
        if data.get(section) is None:
            data[section] = {"ce": {}} if path.startswith("loss.") else {}  # its default
        data = data[section]
        if isinstance(data, list):
            assign_step(data, path.split(".")[depth + 1 :], value, path, absent_ok=absent_ok)
            return
        if not isinstance(data, dict):
            raise UserError(f"{path}: {'.'.join(sections[: depth + 1])} must be a mapping but is {data!r}")
    if value is not None or not removable(path):
        data[last] = copy.deepcopy(value)  # a later override may change it, and must not change the study
    elif last in data:
        del data[last]
    elif not absent_ok:
        raise UserError(f"{path}: nothing to remove; {unknown('key', last, data)}")


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted path -> the two values, where two configs' plain data differ; None for a section that one lacks."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in [*one, *(key for key in other if key not in one)]:
        here, there = one.get(key), other.get(key)
        if isinstance(here, Mapping) and isinstance(there, Mapping):
            found |= {f"{key}.{path}": values for path, values in differences(here, there).items()}
        elif here != there:
            found[key] = (here, there)
    return found


def removable(path: str) -> bool:
    """Whether `None` removes the key at a dotted path: true for knowledge paths, task losses, steps and options."""
    parts = path.split(".")
    return len(parts) > 1 and (parts[:-1] in (["distill"], ["loss"], ["data", "augment"]) or parts[-2] == "options")


def read_text(path: Path) -> str:
    """The text of a user's file in UTF-8, with or without a byte order mark. Raises UserError where it is none."""
    check_regular(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: a text file may have {MAX_BYTES:,} bytes, but it has {path.stat().st_size:,}")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder, not a YAML file; give a file") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path}: line {line} is not text in UTF-8 (byte {error.object[error.start]:#04x}); save the file as UTF-8"
        ) from None


def read_yaml(path: Path) -> Any:
    """The plain data of a YAML file. Raises UserError when it is missing or is not YAML."""
    return parse_yaml(read_text(path), str(path))
