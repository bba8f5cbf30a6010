"""Workers: the data-parallel processes of one run, a number or a range of numbers."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field

from trainer.config import Integer, shown

LARGEST = 100_000
"""The largest number of workers, CPUs, GPUs, threads or runs at once, and the highest price."""


def _range(value: object) -> object:
    """A range of one number becomes that number."""
    if not isinstance(value, list | tuple):
        return value
    whole = all(type(each) is int and 1 <= each <= LARGEST for each in value)
    if len(value) != 2 or not whole or value[0] > value[1]:
        raise ValueError(
            f"must be a whole number, or the lower and the upper number such as [1, 4], but got {shown(list(value))}"
        )
    return value[0] if value[0] == value[1] else tuple(value)


Workers = Annotated[Annotated[Integer, Field(ge=1, le=LARGEST)] | tuple[int, int], BeforeValidator(_range)]
"""The number of a run's workers; or (lower, upper), between which it may change while the run trains."""


def workers_of(text: str) -> int | list[int] | str:
    """What `--workers` gives, as a spec would have it: `2`, or `1-4` for [1, 4]. Anything else stays text."""
    if re.fullmatch(r"-?\d{1,9}", text):
        return int(text)
    found = re.fullmatch(r"(\d{1,9})-(\d{1,9})", text)
    return [int(found[1]), int(found[2])] if found else text


def in_words(workers: int | tuple[int, int]) -> str:
    """`2`, or `1 to 4`."""
    return str(workers) if isinstance(workers, int) else f"{workers[0]} to {workers[1]}"
