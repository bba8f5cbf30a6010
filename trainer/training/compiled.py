"""Compiler: torch.compile for the parts of a step, shared by the runs of a process and cached between processes.

A part is a plain function whose module is an argument. torch guards on the structure of a module and not on its
identity, so a function that has been compiled for one run serves every later run of the same structure.
"""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from trainer import parallel
from trainer.compiler import check_compiler
from trainer.place import Place

MOST_STRUCTURES = 1000
"""Graphs that torch may keep of one function, one for each structure and shape; by default it gives up after eight."""

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Compiler:
    """How parts of a step are compiled. With `cuda_graphs`, a call replays recorded kernels: what it returns is
    overwritten by the next call, so a caller copies what it keeps."""

    backend: str = "inductor"
    cuda_graphs: bool = False

    def __call__(self, function: Function) -> Function:
        """The function, compiled as one graph for each shape; a graph break is an error."""
        return _compile(function, self.backend, self.cuda_graphs)


def compiler_of(place: Place, device: torch.device) -> Compiler | None:
    """The compiler of a run, None where `place` asks for none. Raises UserError where this machine cannot compile."""
    if not place.compile:
        return None
    check_compiler(device.type)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder(place.cache_dir)))
    # CUDA graphs cannot record the reduction of gradients by several workers
    return Compiler(cuda_graphs=device.type == "cuda" and parallel.world() == 1)


def cache_folder(cache: Path) -> Path:
    """Where compiled code is kept: by kind of CPU, as machines that share a store may have different ones."""
    return cache / "compiled" / f"{platform.machine()}-{torch.backends.cpu.get_cpu_capability()}".replace(" ", "-")


@functools.cache
def _compile(function: Function, backend: str, cuda_graphs: bool) -> Function:
    options: dict[str, Any] = {"mode": "reduce-overhead"} if cuda_graphs and backend == "inductor" else {}
    compiled = torch.compile(function, backend=backend, fullgraph=True, dynamic=False, **options)

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        limits = torch._dynamo.config  # of this thread: each run of a process has one of its own
        if limits.recompile_limit != MOST_STRUCTURES:
            limits.recompile_limit = limits.accumulated_recompile_limit = MOST_STRUCTURES
        return compiled(*arguments)

    return call  # type: ignore[return-value]
