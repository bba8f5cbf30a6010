"""What does a run compute? The TransKD models, losses, data and training loop, in plain PyTorch.

`fit`, `Place`, `TrainConfig` and `UserError` are its interface for Python (docs/python.md), imported when used.
`fit` raises UserError where PyTorch is not installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.config import TrainConfig, UserError
    from trainer.place import Place
    from trainer.training.loop import fit

__all__ = ["Place", "TrainConfig", "UserError", "fit"]
_HOMES = {
    "Place": "trainer.place",
    "TrainConfig": "trainer.config",
    "UserError": "trainer.config",
    "fit": "trainer.training.loop",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "fit":
        from trainer.config import require

        require("trainer.fit", "torch")
    return getattr(import_module(_HOMES[name]), name)
