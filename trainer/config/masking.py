"""masked(): a text without the passwords and tokens of addresses, headers, options and our environment."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator
from urllib.parse import quote, unquote

MASK = "***"

_SECRETS = "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "DATABRICKS_TOKEN", "AWS_SECRET_ACCESS_KEY"
_OTHER_SECRETS = re.compile(r"(?i)(token|passw(or)?d|passphrase|secret|(api|access|secret|account)_?key)$")
_ADDRESSES = re.compile(r"(?i)(ur[il]|dsn|proxy|connection_?string)$")
"""Variables of the environment that hold a secret, or an address with one."""
_SHORTEST = 4
_SHORTEST_OTHER = 8
"""A shorter secret is masked only where its place shows it: its letters occur in words."""

_WITH_BLANKS = re.compile(
    r"(?i)\b([a-z][a-z0-9+.-]{0,30}://)"
    r"[^\s/@:]*:(?!\d{1,5}(?![\w@]))[^\s@]{1,200}(?:\ (?!\S*://)[^\s@]{1,200}){1,3}(?=@)"
)
"""A password with blanks between `scheme://user:` and `@`. A number after the colon is a port."""
_SCHEME = re.compile(r"(?i)[a-z][a-z0-9+.-]*:/+|//|https?:")
_USER_AND_PASSWORD = re.compile(r"(?:^|[\s'\"=(\[{<,;/])([\w.+%~-]+:[^\s'\"\\].*)$", re.DOTALL)
_USER = re.compile(r"[^\s'\"=(\[{<,;/]+$")
_PORT = re.compile(r"[\w.-]+:\d+")
_IMAGE = re.compile(r"sha\d+:")

_NAME = r"""(?:
    (?<!unexpected\ )(?<!unrecognized\ )(?<!cls_)(?<!mask_)(?<!dist_)token | passw(?:or)?d | passphrase | pwd | secret
    | (?:api|access|secret|private|account|auth)[_\ -]?key(?:[_-]?id)? | credentials? | signature | connection_?string
)"""
_SHORT_NAME = r"(?<![a-z])(?:auth|pass|pw|sig|jwt|session_?id)"
"""Names that are words too: only before `=`, or in quotes."""
_NAME_IN_ADDRESS = r"(?<=[?&;\#])(?:key|code|session|sid|ticket|assertion|otp|pin)"
_QUOTE = r"\\?[\"']"
_NO_SECRET = r"(?!(?:none|null|true|false|\*\*\*)(?:[\s,;)}\]&'\"]|$))"
_VALUE = rf"""(?:
    (?P<opened>b?(?P<quote>{_QUOTE}))(?:(?!(?P=quote)(?:[\s,;:)}}\]&>]|$)).)+   # up to the same quote after a word
    | {_NO_SECRET}(?:(?![,;]\s?\w+=)[^\s&<])*[^\s&<'\")\]}},;:\\]   # up to a blank, less the brackets around it
)"""
_NAMED = re.compile(
    rf"""(
        {_NAME}(?:{_QUOTE})?\s?(?:=>|:=|[=:>])\s?       # password=x, "password": "x", X-Api-Key: x
        | {_NAME}{_QUOTE},\s?                           # ('password', 'x')
        | {_SHORT_NAME}(?:=|{_QUOTE}\s?[:,=]\s?)
        | {_NAME_IN_ADDRESS}=
        | --[\w-]*{_NAME}\s+
        | \bauthorization(?:{_QUOTE})?\s?[:=,]\s?(?!b?{_QUOTE}?(?:bearer|basic|token|digest|negotiate)\s)
        | \bcookie:\s?(?:[\w.-]+=)?
    ){_VALUE}""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
_AFTER_SCHEME = re.compile(
    r"(?i)(\b(?:bearer|basic)\s+(?=\S*(?-i:[A-Z0-9]))|\bauthorization\W{1,4}(?:bearer|basic|token|digest|negotiate)\s+)"
    r"[^\s'\",;)}\]]+"
)
_SPOKEN = re.compile(
    r"""(\b(?:passw(?:or)?d | passphrase | pwd | secret | (?:api|access|secret|auth)[_\ -]?(?:key|token)
        | (?<!unexpected\ )(?<!unrecognized\ )token)
        \s+(?:(?:is|was|of|for\s+(?:user\s+)?\S{1,80}(?:\s+is)?)\s+)?)
    (?:(?P<opened>b?(?P<quote>\\?["'`]))(?:(?!(?P=quote)).){1,200}(?=(?P=quote))
    | (?=[^\s,;)]*[0-9])(?=[^\s,;)]*[A-Za-z!$%&#@*~^])[^\s,;)<>"'`=:/\[\](]{6,200})""",
    re.IGNORECASE | re.VERBOSE,
)
"""As a sentence says it: `Password hunter2 is too short`, `token 'x'`. Without quotes only what has a digit beside
letters: others are words (`password authentication failed`)."""
_DATABRICKS = re.compile(r"(?i)(\bdatabricks(?:-uc)?://)[^\s'\"]+")
_PATTERNS = (_WITH_BLANKS, _AFTER_SCHEME, _NAMED, _SPOKEN, _DATABRICKS)
"""The secret follows the first group."""


def masked(text: str) -> str:
    """The text without passwords and tokens: those of addresses, those named so, and those of our environment.

    Of an address everything before the `@` is masked: tokens also stand as user, with any password or none.
    """
    for secret in sorted(set(_known_secrets()), key=len, reverse=True):
        text = text.replace(secret, MASK)
    for pattern in _PATTERNS:
        text = pattern.sub(lambda found: f"{found[1]}{found.groupdict().get('opened') or ''}{MASK}", text)
    return re.sub(r"\S+", lambda word: _without_user(word[0]), text) if "@" in text else text


def _without_user(word: str) -> str:
    """A word without what stands before the `@` of an address in it."""
    head, at, host = word.rpartition("@")
    if not at or _IMAGE.match(host):
        return word
    if scheme := _SCHEME.search(head):
        start, user = scheme.end(), head[scheme.end() :]
        http = scheme[0].lower().startswith("http")
        is_user = ":" in user or (bool(user) and "/" not in user and (http or scheme[0].endswith("//")))
    else:
        found = _USER_AND_PASSWORD.search(head)
        alone = _USER.search(head) if _PORT.match(host) else None
        start = found.start(1) if found else alone.start() if alone else 0
        is_user = bool(found or alone)
    return f"{head[:start]}{MASK}@{host}" if is_user else word


def _known_secrets() -> Iterator[str]:
    """The secrets of our environment, as they are written there, without `%` escapes and with them."""
    for name, value in os.environ.items():
        shortest, is_address = _holds(name)
        for secret in _secrets_of(value) if is_address else [value] if shortest else ():
            forms = secret, unquote(secret), quote(secret, safe="")
            yield from (text for text in forms if len(text) >= shortest and text != MASK)


@functools.cache
def _holds(name: str) -> tuple[int, bool]:
    """Of a variable of the environment: the length of the shortest secret in it that is masked, 0 where it holds none,
    and whether it stands in an address."""
    if name in _SECRETS or _OTHER_SECRETS.search(name):
        return _SHORTEST if name in _SECRETS else _SHORTEST_OTHER, False
    return (_SHORTEST, True) if _ADDRESSES.search(name) else (0, False)


def _secrets_of(address: str) -> Iterator[str]:
    """The parts of an address that are secret: the password, or a user without one; values named so."""
    before, at, _ = address.rpartition("@")
    if at:
        user, _, password = before.rpartition("//")[2].partition(":")
        yield password or user
    for pattern in (_NAMED, _DATABRICKS):
        yield from (found[0].removeprefix(found[1]).strip("\\'\"") for found in pattern.finditer(address))
