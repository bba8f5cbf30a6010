"""Patterns: the files that a folder or glob of a user names, by the stem that pairs images and masks."""

from __future__ import annotations

import re
from collections.abc import Collection
from glob import escape
from pathlib import Path, PurePosixPath

from trainer.config import UserError
from trainer.config.input_files import refuse_undecodable
from trainer.data.images import ENDINGS
from trainer.data.own_folder.walk import files_below
from trainer.data.pairing import composed, is_hidden

_WILD = re.compile(r"\*\*|\*|\?|\[!?[^\]]+\]")
_LITERAL = {"[[]": "[", "[*]": "*", "[?]": "?"}
"""How glob.escape writes a character that would be a wildcard -> the character; no part of a stem."""


def find_files(option: str, root: Path, pattern: str, without: Collection[Path] = ()) -> dict[str, Path]:
    """Stem -> file, for the files below `root` that a folder or glob names, except `without`.

    `option` is its name in messages. The stem is what the wildcards stand for, joined by `/`: `seq1/0001` of
    seq1/0001_L.png for `*/*_L.png`. A folder stands for all files below it; one that is there goes before a glob, as
    its name may hold brackets. Raises UserError for a pattern that matches nothing or leaves the root, for a missing
    folder, for two files of one stem, and for a name that is not UTF-8.
    """
    if not pattern or PurePosixPath(pattern).is_absolute() or ".." in PurePosixPath(pattern).parts:
        raise UserError(f"{option}: a folder or glob must be below the data root, but got {pattern!r}; give that part")
    folder = pattern if (root / pattern).is_dir() else _folder(pattern)
    if folder is not None and not (root / folder).is_dir():
        raise UserError(f"{option}: no folder {root / folder}; correct it, or give a glob such as 'images/*.png'")
    glob = pattern if folder is None else f"{escape(folder.rstrip('/'))}/**/*"
    whole, stem_of = _matcher(glob), _stems(glob)
    found: dict[str, Path] = {}
    for path in files_below(root / _base(glob)):
        relative = path.relative_to(root)
        if whole.fullmatch(relative.as_posix()) is None:
            continue
        if path.suffix.lower() not in ENDINGS or is_hidden(relative) or path in without or not path.is_file():
            continue
        refuse_undecodable(path)
        match = stem_of.fullmatch(relative.with_suffix("").as_posix())
        if match is None:
            continue
        stem = composed("/".join(part.strip("/") for part in match.groups() if part.strip("/")))
        if stem in found:
            raise UserError(
                f"{found[stem]} and {path} have the same stem; keep one of them, or give a narrower {option}"
            )
        found[stem] = path
    if not found:
        kinds = ", ".join(ENDINGS)
        raise UserError(f"{option}: no file below {root} matches {pattern!r} (ending in {kinds}); correct it")
    return found


def without_wildcards(pattern: str, stem: str) -> str:
    """A path without its ending that the pattern matches, for a file of this stem to be made."""
    if (folder := _folder(pattern)) is not None:
        return f"{folder.rstrip('/')}/{stem}"
    path = pattern.replace("**/", "")
    path = path[: -len(PurePosixPath(path).suffix)] if PurePosixPath(path).suffix else path
    return _WILD.sub(lambda wild: _LITERAL.get(wild[0], stem), path)


def _folder(pattern: str) -> str | None:
    """The folder that a pattern without wildcards names; None for a glob."""
    if any(wild[0] not in _LITERAL for wild in _WILD.finditer(pattern)):
        return None
    return _WILD.sub(lambda wild: _LITERAL[wild[0]], pattern)


def _base(glob: str) -> str:
    """The folders before the first wildcard."""
    folders = glob.split("/")[:-1]
    wild = next((i for i, part in enumerate(folders) if _folder(part) is None), len(folders))
    return "/".join(str(_folder(part)) for part in folders[:wild])


def _stems(glob: str) -> re.Pattern[str]:
    """Matches a path without its ending; a group for each wildcard."""
    ending = PurePosixPath(glob).suffix
    return _matcher(glob[: -len(ending)] if ending else glob)


def _matcher(glob: str) -> re.Pattern[str]:
    """Matches a path; a group for each wildcard."""
    *folders, last = glob.split("/")
    text = "".join("((?:[^/]+/)*)" if part == "**" else f"{_part(part)}/" for part in folders if part not in ("", "."))
    return re.compile(text + _part(last))


def _part(part: str) -> str:
    text, at = "", 0
    for wild in _WILD.finditer(part):
        text += re.escape(part[at : wild.start()])
        if wild[0] in _LITERAL:
            text += re.escape(_LITERAL[wild[0]])
        else:
            text += {"*": "([^/]*)", "**": "([^/]*)", "?": "([^/])"}.get(wild[0], f"({wild[0].replace('[!', '[^')})")
        at = wild.end()
    return text + re.escape(part[at:])
