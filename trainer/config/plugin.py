"""Plugin: a user's module as a value of a config: its names, and its content, which enters the ids of runs that use it.

Nothing here runs the module's code: `trainer/plugins/load.py` does.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from trainer.config.errors import UserError
from trainer.config.fields import Name
from trainer.config.plain import read_text
from trainer.config.text import message_of

FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\.py")
NAME = re.compile(r"[a-z][a-z0-9_]*")
"""Of an entry: it stands in dotted paths, in names of files and in metrics."""
MOST_CHARACTERS = 60_000
"""Of all plugin files of a study: they are written into the config of each run that uses them."""


class Group(NamedTuple):
    """What a plugin may add: the entry points of packages, a word for messages, and the names that a config uses."""

    entry_points: str
    what: str
    used: Callable[[Any], Iterable[str]]
    reserved: tuple[str, ...] = ()
    """Names that mean something else where an entry is named."""


def _networks(config: Any) -> list[str]:
    return [model.name for model in (config.student, config.teacher) if model is not None]


GROUPS = {
    "DISTILLERS": Group("transkd.distillers", "distiller", lambda config: config.active, ("total",)),
    "MODELS": Group("transkd.models", "model", _networks),
    "DATASETS": Group("transkd.datasets", "data set", lambda config: [config.data.name]),
    "AUGMENTATIONS": Group(
        "transkd.augmentations",
        "step",
        lambda config: [step.name for step in config.data.steps],
        ("standard", "reference", "none", "name", "options"),
    ),
}
"""By the name of the dictionary that a file defines. `trainer/plugins/groups.py` has what each entry must be."""


def _check_sha256(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise ValueError(f"a sha256 has 64 hex digits, but got {text[:100]!r}")
    return text


def _check_group(name: str) -> str:
    if name not in GROUPS:
        raise ValueError(f"a plugin has {', '.join(GROUPS)}, but got {name[:100]!r}")
    return name


def _check_source(text: str) -> str:
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"plugin files may have {MOST_CHARACTERS:,} characters, but it has {len(text):,}")
    return text


Sha256 = Annotated[str, AfterValidator(_check_sha256)]
GroupName = Annotated[str, AfterValidator(_check_group)]
Source = Annotated[str, AfterValidator(_check_source)]


class Plugin(BaseModel):
    """A file beside a study, or an installed package, and the names that it defines in each of GROUPS."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name = Field(description="`my_kd.py` of a file; package and version, `my_kd 1.2`, of a package")
    sha256: Sha256 = Field(description="of the file's text, or of the package's files")
    entries: dict[GroupName, tuple[Name, ...]]
    source: Source = Field("", repr=False, description="the text of a file; records of a run in a ledger leave it out")

    @model_validator(mode="after")
    def _is_whole(self) -> Plugin:
        if self.source and _digest(self.source) != self.sha256:
            raise ValueError(
                f"{self.name} is not the text that its sha256 names; give the file itself, `[{self.name}]`"
            )
        return self

    @property
    def is_file(self) -> bool:
        """Whether it is a file, not a package."""
        return self.name.endswith(".py")

    @property
    def package(self) -> str:
        """The name of a package without its version."""
        return self.name.partition(" ")[0]

    def is_used(self, config: Any) -> bool:
        """Whether a TrainConfig names one of its entries."""
        return any(set(names) & set(GROUPS[group].used(config)) for group, names in self.entries.items())

    def plain(self, *, whole: bool) -> dict[str, Any]:
        """As JSON; `whole` with the text of the file."""
        return self.model_dump(mode="json", exclude=None if whole else {"source"})


def read_plugin(name: Any, folder: Path) -> Plugin:
    """The plugin in a file of `folder`. Raises UserError where it is missing, is no Python or defines nothing."""
    if not isinstance(name, str) or not FILE.fullmatch(name):
        raise UserError(
            f"plugins: a plugin is the name of a Python file beside the study, such as my_kd.py, but got {name!r}; "
            "put the file there and name it"
        )
    path = folder / name
    if not path.exists():
        raise UserError(f"plugins: no such file: {path}; put it beside the study")
    text = read_text(path)
    if len(text) > MOST_CHARACTERS:
        raise UserError(
            f"plugins: plugin files may have {MOST_CHARACTERS:,} characters, but {name} has {len(text):,}; "
            "make it a package with entry points"
        )
    return Plugin(name=name, sha256=_digest(text), entries=entries_of(text, name), source=text)


def entries_of(text: str, name: str) -> dict[str, tuple[str, ...]]:
    """The names that a plugin's text defines, by group, found without running it. Raises UserError where there are none
    or they are no literals."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError) as error:
        at = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        said = error.msg if isinstance(error, SyntaxError) else message_of(error)
        raise UserError(f"plugin {name}{at} is not Python: {said}; correct the file") from None
    found: dict[str, tuple[str, ...]] = {}
    for statement in tree.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        for target in targets:
            if isinstance(target, ast.Name) and target.id in GROUPS:
                found[target.id] = _names(getattr(statement, "value", None), target.id, statement.lineno, name)
    if not any(found.values()):
        raise UserError(
            f"plugin {name} defines nothing: write one of {', '.join(GROUPS)} at its top level, for example "
            'DISTILLERS = {"my_kd": MyDistiller}'
        )
    return found


def _names(value: ast.expr | None, group: str, line: int, file: str) -> tuple[str, ...]:
    """The keys of a dictionary's literal."""
    keys = value.keys if isinstance(value, ast.Dict) else [None]
    names = [key.value if isinstance(key, ast.Constant) else None for key in keys]
    for name in names:
        if not isinstance(name, str):
            raise UserError(
                f"plugin {file}, line {line}: {group} must be a dictionary whose names are written out, for a study "
                f'is read without running its plugins; write {group} = {{"my_name": ...}}'
            )
        check_entry(name, group, f"plugin {file}, line {line}: {group}")
    listed = [name for name in names if isinstance(name, str)]
    if twice := next((name for name in listed if listed.count(name) > 1), None):
        raise UserError(f"plugin {file}, line {line}: {group} has the name '{twice}' twice; rename one")
    return tuple(listed)


def check_entry(name: str, group: str, where: str) -> None:
    """Raise UserError for a name that cannot stand in dotted paths, or means something else where it would stand."""
    if not NAME.fullmatch(name):
        raise UserError(
            f"{where}: a name has small letters, digits and underscores, and begins with a letter, but got {name!r}; "
            "rename it"
        )
    if name in GROUPS[group].reserved:
        what = GROUPS[group].what
        raise UserError(f"{where}: the name '{name}' means something else where a {what} is named; rename it")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
