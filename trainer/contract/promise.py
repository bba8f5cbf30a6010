"""ContractError: what an entry does wrong, in plain words; require() raises it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Entry = TypeVar("Entry")
Checks = dict[str, Callable[[Entry], None]]
"""What is promised -> the check, which raises ContractError where it is not kept."""


class ContractError(AssertionError):
    """A promise that an entry does not keep: what was seen, and what to do."""


def require(kept: bool, otherwise: str) -> None:
    """Raise ContractError with a text unless a promise is kept."""
    if not kept:
        raise ContractError(otherwise)
