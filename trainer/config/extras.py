"""Extras: what the wheel installs only where it is asked for, and the error where a command misses it."""

from __future__ import annotations

from importlib.util import find_spec

from trainer.config.errors import UserError

EXTRAS: dict[str, tuple[str, ...]] = {
    "train": ("torch", "torchvision", "timm", "safetensors", "psutil", "pynvml"),
    "orchestrate": ("ray", "mlflow", "optuna", "aiohttp", "cmaes", "sklearn", "sqlalchemy"),
    "export": ("onnx", "onnxruntime", "onnxscript"),
    "tensorboard": ("tensorboardX",),
    "wandb": ("wandb",),
}
"""Extra of pyproject.toml -> the modules that it brings. Beside them the wheel's core is installed."""
WITH_TRAIN = ("orchestrate", "export")
"""Extras that bring those of `train` too."""


def require(what: str, *modules: str) -> None:
    """Raise UserError where `what` needs one of these modules that is not installed."""
    if told := missing(*modules):
        raise UserError(f"{what} needs {told}")


def missing(*modules: str) -> str:
    """The modules that are not installed, with the remedy, as the end of a sentence; "" where all are there. Imports
    none of them."""
    absent = [module for module in modules if not _is_installed(module)]
    if not absent:
        return ""
    extras = {extra for extra, brought in EXTRAS.items() if not set(brought).isdisjoint(absent)}
    if not extras.isdisjoint(WITH_TRAIN):
        extras -= {"train"}
    named = " and ".join([", ".join(absent[:-1]), absent[-1]] if absent[1:] else absent)
    return f"{named}, not installed here; pip install 'transkd[{','.join(sorted(extras))}]'"


def missing_in(error: ModuleNotFoundError) -> str:
    """What `missing` says of the module that an import did not find; "" for a module that no extra brings."""
    module = (error.name or "").partition(".")[0]
    return missing(module) if any(module in brought for brought in EXTRAS.values()) else ""


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # ValueError: a module without a spec stands in for it
        return False
