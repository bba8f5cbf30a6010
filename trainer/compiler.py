"""Whether torch.compile can work on this machine; asked without torch, before a run starts."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path

from trainer.config import UserError

CPP = ("g++", "clang++", "c++")
C = ("gcc", "clang", "cc")


def check_compiler(device: str) -> None:
    """Raise UserError where torch.compile lacks what it needs for `device`: `cpu`, `cuda`, `cuda:N` or `auto`.

    For a CPU, torch writes C++ that includes Python's headers. For a GPU, Triton compiles its launchers in C.
    """
    gpu = device.startswith("cuda")
    if gpu and importlib.util.find_spec("triton") is None:
        raise UserError(f"compile on {device} needs the package triton, which is not installed; {REMEDY}")
    variable, known = ("CC", C) if gpu else ("CXX", CPP)
    asked = os.environ.get(variable)
    if shutil.which(asked) is None if asked else not any(map(shutil.which, known)):
        found = f"{variable} is '{asked}', which is no program here" if asked else f"none of {', '.join(known)} is here"
        raise UserError(f"compile on {device} needs a {'C' if gpu else 'C++'} compiler, but {found}; {REMEDY}")
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.exists():
        raise UserError(f"compile on {device} needs Python's headers, but there is no {header}; {REMEDY}")


REMEDY = "install it, or leave compile out"
