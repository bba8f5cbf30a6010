"""Epochs: the metrics of a run's epochs, parsed from the journal at first use and stored compactly.

A ledger of 10,000 runs holds millions of numbers, and most commands read few of them.
"""

from __future__ import annotations

import math
import threading
from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, overload

Lines = list[tuple[int, int]]
"""Positions of lines in a file: (offset, length) in bytes."""
Load = Callable[[Lines], list[tuple[str, dict[str, Any]]]]
"""Parses lines of one journal: (time, metrics) of each."""

_NAMES: dict[tuple[str, ...], dict[str, int]] = {}
"""The names of an epoch's metrics and their places, kept once for all epochs that measure the same."""
LOCK = threading.RLock()
"""Held while epochs are added or parsed: tracking reads them on a thread of its own."""


class Metrics(Mapping[str, float]):
    """The metrics of one epoch, read-only. 8 bytes a number; null, for what was not finite, is NaN."""

    __slots__ = ("_places", "_values")

    def __init__(self, metrics: Mapping[str, float | None]) -> None:
        names = tuple(metrics)
        if (places := _NAMES.get(names)) is None:
            places = _NAMES[names] = {name: place for place, name in enumerate(names)}
        self._places = places
        numbers: Collection[Any] = metrics.values()
        self._values: array[float] = array(
            "d", [math.nan if x is None else x for x in numbers] if None in numbers else numbers
        )

    def __getitem__(self, name: str) -> float:
        value = self._values[self._places[name]]
        return math.nan if value != value else value  # one NaN for all, so that equal metrics compare as equal

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __repr__(self) -> str:
        return repr(dict(self))


def values(metrics: Mapping[str, float]) -> Sequence[float]:
    """The numbers of an epoch in the order of their names; of `Metrics` without a look-up for each."""
    return metrics._values if isinstance(metrics, Metrics) else list(metrics.values())


class Epochs(Sequence[Mapping[str, float]]):
    """A run's epochs in order, each once: of two records of one epoch the later counts."""

    def __init__(self) -> None:
        self._rows: list[Metrics] = []
        self._times: dict[float, str] = {}
        self._unread: list[tuple[Load, Lines]] = []

    def add(self, time: str, metrics: Mapping[str, float | None]) -> None:
        """One more epoch, or another record of one."""
        with LOCK:
            self._parse_unread()
            self._insert(time, metrics)

    def add_line(self, load: Load, offset: int, length: int) -> None:
        """One more record, which stands in the journal of `load` and is parsed when it is needed. The caller holds
        `LOCK`."""
        if not self._unread or self._unread[-1][0] is not load:
            self._unread.append((load, []))
        self._unread[-1][1].append((offset, length))

    @property
    def times(self) -> Mapping[float, str]:
        """When each epoch was recorded, by its number, ISO 8601."""
        with LOCK:
            self._parse_unread()
            return self._times

    def _insert(self, time: str, metrics: Mapping[str, float | None]) -> None:
        row = Metrics(metrics)
        epoch = row["epoch"]
        self._times[epoch] = time
        if not self._rows or self._rows[-1]["epoch"] < epoch:
            self._rows.append(row)
            return
        place = bisect_left(self._rows, epoch, key=lambda other: other["epoch"])
        again = place < len(self._rows) and self._rows[place]["epoch"] == epoch
        self._rows[place : place + again] = [row]

    def _parse_unread(self) -> None:
        while self._unread:
            load, lines = self._unread[0]
            found = load(lines)
            del self._unread[0]
            for time, metrics in found:
                self._insert(time, metrics)

    def _parsed(self) -> list[Metrics]:
        with LOCK:
            self._parse_unread()
            return self._rows

    @overload
    def __getitem__(self, index: int) -> Mapping[str, float]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Mapping[str, float]]: ...
    def __getitem__(self, index: int | slice) -> Mapping[str, float] | Sequence[Mapping[str, float]]:
        return self._parsed()[index]

    def __len__(self) -> int:
        return len(self._parsed())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._parsed())
