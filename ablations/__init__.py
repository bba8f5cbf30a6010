"""Which runs answer the question? Studies, plans, statistics and tables, in plain Python.

`Study` and `load` are its interface for Python (docs/python.md), imported when they are used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ablations.study.schema import Study, load

__all__ = ["Study", "load"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("ablations.study.schema"), name)
