"""ContractError: what an entry does wrong, in plain words; require() and require_first() raise it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Entry = TypeVar("Entry")
Checks = dict[str, Callable[[Entry], None]]
"""What is promised -> the check, which raises ContractError where it is not kept."""


class ContractError(AssertionError):
    """A promise that an entry does not keep: what was seen, and what to do."""


class UnusableError(ContractError):
    """A broken promise with which the other checks would say nothing, or the same in other words."""


def require(kept: bool, otherwise: str) -> None:
    """Raise ContractError with a text unless a promise is kept."""
    if not kept:
        raise ContractError(otherwise)


def require_first(kept: bool, otherwise: str) -> None:
    """Raise UnusableError with a text unless a promise is kept that the other checks build on."""
    if not kept:
        raise UnusableError(otherwise)
