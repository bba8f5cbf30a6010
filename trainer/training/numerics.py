"""torch's settings that decide how a GPU rounds and whether it repeats itself; set at the start of a run, in one place.

A CPU has no such choice: there nothing is set, and every run repeats bit for bit at equal threads.
"""

from __future__ import annotations

import os
from typing import Any

import torch

from trainer.config import Precision, UserError
from trainer.training.compiled import Compiler

WORKSPACES = (":4096:8", ":16:8")
"""Values of CUBLAS_WORKSPACE_CONFIG under which cuBLAS repeats itself (torch.use_deterministic_algorithms)."""
TF32_SINCE = (8, 0)
"""The compute capability from which a GPU has TF32."""


def set_up(precision: Precision, deterministic: bool, device: torch.device) -> None:
    """Set what torch keeps for the whole process, for a run of `precision` on `device`.

    TF32 changes numbers, so it is part of the config: `fp32` is IEEE float32 in matrix products and in convolutions,
    where torch's own default is TF32; `tf32` is TF32 in both. Raises UserError for what the device cannot do.
    """
    if precision == "tf32" and (device.type != "cuda" or torch.cuda.get_device_capability(device) < TF32_SINCE):
        raise UserError(
            f"optim.precision tf32 needs a GPU of compute capability 8.0 or higher, but the device is {device}; "
            "set optim.precision: fp32"
        )
    if device.type != "cuda":
        return
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.benchmark = not deterministic  # the fastest algorithm, which may differ between starts
    if deterministic:
        check_workspace(os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", WORKSPACES[0]))
    torch.use_deterministic_algorithms(deterministic)  # of cuDNN too


def check_workspace(value: str) -> None:
    """Raise UserError for a value of CUBLAS_WORKSPACE_CONFIG under which cuBLAS does not repeat itself."""
    if value not in WORKSPACES:
        raise UserError(
            f"deterministic needs CUBLAS_WORKSPACE_CONFIG to be one of {', '.join(WORKSPACES)}, but it is '{value}'; "
            "unset it"
        )


def described(device: torch.device, compiler: Compiler | None) -> dict[str, Any]:
    """What torch is set to now, for the record of a run."""
    if device.type != "cuda":
        return {"deterministic": True, "compiled": compiler is not None}
    return {
        "float32_matmul": torch.get_float32_matmul_precision(),
        "cudnn_tf32": torch.backends.cudnn.allow_tf32,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "compiled": compiler is not None,
    }
