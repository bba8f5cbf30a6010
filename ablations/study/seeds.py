"""Seeds: how a study's YAML gives them, as a count, as a list, or as looks of a group-sequential test."""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from trainer.config import Integer, Strict, explain

MAX_SEEDS = 40
"""The exact sign-flip test enumerates 2**(n/2) sums (see statistics/paired.py), which limits the number of seeds."""


def increasing(looks: tuple[int, ...]) -> tuple[int, ...]:
    """The looks as given, possibly none. Raises ValueError where they are not increasing counts of seeds."""
    got = list(looks)
    if len(got) == 1:
        raise ValueError(f"at least two looks are needed, as one is a fixed number of seeds; write seeds: {got[0]}")
    if any(later <= earlier for earlier, later in itertools.pairwise(got)):
        raise ValueError(f"looks must grow, such as [6, 8, 12], but got {got}")
    if got and (got[0] < 2 or got[-1] > MAX_SEEDS):
        raise ValueError(f"looks are counts of seeds from 2 to {MAX_SEEDS}, but got {got}")
    return looks


class Looks(Strict):
    """Counts of seeds at which contrasts are tested; those that stay undecided get the seeds of the next count."""

    looks: Annotated[tuple[Integer, ...], AfterValidator(increasing)] = Field(min_length=1)
    until: Literal["decided"] = "decided"


def split_looks(data: Any) -> Any:
    """A study's data with `seeds: {looks: [6, 8, 12]}` replaced by the list of all seeds and a separate `looks`."""
    if not isinstance(data, dict) or not isinstance(data.get("seeds"), dict):
        return data
    try:
        given = Looks.model_validate(data["seeds"])
    except ValidationError as error:
        raise explain(error, "seeds") from None
    return {**data, "seeds": list(range(given.looks[-1])), "looks": given.looks}


def expand_count(seeds: Any) -> Any:
    """`seeds: 3` as the seeds 0, 1, 2. Raises ValueError on too many."""
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        if not 1 <= seeds <= MAX_SEEDS:
            raise ValueError(f"a count of seeds must be 1 to {MAX_SEEDS} but got {seeds}")
        return tuple(range(seeds))
    if isinstance(seeds, list) and not 1 <= len(seeds) <= MAX_SEEDS:
        raise ValueError(f"1 to {MAX_SEEDS} seeds are needed but got {len(seeds)}")
    return seeds


def refuse_repeated(seeds: tuple[int, ...]) -> tuple[int, ...]:
    """The seeds as given. Raises ValueError on a duplicate, which would count one run twice."""
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"each seed may stand once but got {list(seeds)}")
    return seeds
