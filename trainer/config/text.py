"""Text for people: names without control characters, messages of other people's code without passwords."""

from __future__ import annotations

import re
import unicodedata

from trainer.config.masking import masked

LONGEST_NAME = 200

UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
"""Control characters, line ends, marks that turn the direction of writing, and halves of a character."""

_UNSEEN = re.compile(
    "[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"  # blanks that look like the plain one
    "\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200d\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"  # Unicode's Default_Ignorable_Code_Point
    "\ue000-\uf8ff\ufdd0-\ufdef\ufffe\uffff\U000f0000-\U0010ffff]"  # private use and no characters: one box for all
)
"""Characters that show nothing, or nothing of their own. U+2800 is the blank of Braille."""


def printable(text: str) -> str:
    """The text with control characters written out, as `\\x1b`, so that it cannot steer a terminal."""
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def counted(count: int, what: str) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def message_of(error: BaseException) -> str:
    """What an exception says: one line, without passwords and control characters.

    Every text of an exception that is not our own goes through this function, wherever it is written.
    """
    return printable(masked(" ".join(str(error).split())))


def check_name(name: str, *, recorded: bool = False) -> str:
    """The name as given. Raises ValueError for one that cannot be shown in a line of a table, or read there.

    `recorded` is for names out of files that earlier versions wrote, which took those that cannot be read.
    """
    if not name.strip():
        raise ValueError(f"a name must not be blank, but got {name!r}; write a word")
    if UNPRINTABLE.search(name):
        raise ValueError(f"a name must be one line of printable characters, but got {name[:LONGEST_NAME]!r}; rename it")
    if len(name) > LONGEST_NAME:
        raise ValueError(f"a name may have {LONGEST_NAME} characters, but got {len(name)}; shorten it")
    if not recorded:
        _check_legible(name)
    return name


def _check_legible(name: str) -> None:
    """Raise ValueError for a name that cannot be told from another one by eye."""
    given = ascii(name[:LONGEST_NAME])
    if name != name.strip():
        raise ValueError(f"a name must not begin or end with a blank, but got {given}; remove it")
    if found := _UNSEEN.search(name):
        what = f"U+{ord(found[0]):04X} ({unicodedata.name(found[0], 'without a name')})"
        raise ValueError(f"a name may hold only characters that are seen, but got {given} with {what}; remove it")
    if unicodedata.category(name[0]).startswith("M"):
        raise ValueError(f"a name must not begin with an accent that joins what stands before it, but got {given}")
    if name != (composed := unicodedata.normalize("NFC", name)):
        raise ValueError(
            f"a name must be in Unicode's composed form (NFC), but got {given}; write {composed!a}, or plain letters"
        )
