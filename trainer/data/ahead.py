"""ahead(): compute what comes next on threads, while the caller works on what is there."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, threads: int = 1, most: int = 1, name: str = "ahead"
) -> Iterator[Result]:
    """`function(item)` of each item, in order. Besides the one that the caller waits for, up to `most` are begun.

    An error is raised at its item's turn. The threads end with the iterator.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix=name) as pool:
        begun: deque[Future[Result]] = deque()
        try:
            for item in items:
                begun.append(pool.submit(function, item))
                if len(begun) > most:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for future in begun:
                future.cancel()
