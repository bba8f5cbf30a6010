"""Text for people: names without control characters, messages of other people's code without passwords."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from urllib.parse import unquote

LONGEST_NAME = 200
MASK = "***"

UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
"""Control characters, line ends, marks that turn the direction of writing, and halves of a character."""

_SECRETS = "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "DATABRICKS_TOKEN", "AWS_SECRET_ACCESS_KEY"
_ADDRESSES = "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"
_SHORTEST_SECRET = 4
"""A shorter secret is masked only where its place shows it: its letters occur in words."""

_PASSWORD = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*:/+[^\s/@:'\"]*:)([^\s'\"]*)(?=@)")
_TOKEN_USER = re.compile(r"(?i)\b(https?:/+)([^\s/@:'\"]+)(?=@)")
_NAMED = re.compile(
    r"(?i)((?:token|passw(?:or)?d|pwd|secret|api[_-]?key|access[_-]?key|credentials?|signature|sig)[\"']?"
    r"(?:=|(?<=[\"']):\s*)[\"']?|\b(?:bearer|basic)\s+)([^\s&'\",;)}\]]+)"
)
_PATTERNS = (_PASSWORD, _TOKEN_USER, _NAMED)
"""A password before a host, a user who is a token, a value named as a secret; the second group is the secret."""


def printable(text: str) -> str:
    """The text with control characters written out, as `\\x1b`, so that it cannot steer a terminal."""
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def masked(text: str) -> str:
    """The text without passwords and tokens: those of addresses, those named so, and those of our environment."""
    for secret in sorted(set(_known_secrets()), key=len, reverse=True):
        text = text.replace(secret, MASK)
    for pattern in _PATTERNS:
        text = pattern.sub(lambda found: f"{found[1]}{MASK}", text)
    return text


def message_of(error: BaseException) -> str:
    """What an exception says: one line, without passwords and control characters.

    Every text of an exception that is not our own goes through this function, wherever it is written.
    """
    return printable(masked(" ".join(str(error).split())))


def check_name(name: str) -> str:
    """The name as given. Raises ValueError for one that cannot be shown in a line of a table."""
    if not name.strip():
        raise ValueError(f"a name must not be blank, but got {name!r}; write a word")
    if UNPRINTABLE.search(name):
        raise ValueError(f"a name must be one line of printable characters, but got {name[:LONGEST_NAME]!r}; rename it")
    if len(name) > LONGEST_NAME:
        raise ValueError(f"a name may have {LONGEST_NAME} characters, but got {len(name)}; shorten it")
    return name


def _known_secrets() -> Iterator[str]:
    given = [os.environ.get(name, "") for name in _SECRETS]
    for name in _ADDRESSES:
        given += [found[2] for pattern in _PATTERNS for found in pattern.finditer(os.environ.get(name, ""))]
    for secret in given:
        yield from (text for text in (secret, unquote(secret)) if len(text) >= _SHORTEST_SECRET and text != MASK)
