"""Text for people: names without control characters, messages of other people's code without passwords."""

from __future__ import annotations

import re

from trainer.config.masking import masked

LONGEST_NAME = 200

UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
"""Control characters, line ends, marks that turn the direction of writing, and halves of a character."""


def printable(text: str) -> str:
    """The text with control characters written out, as `\\x1b`, so that it cannot steer a terminal."""
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


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
