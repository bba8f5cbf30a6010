"""doctor: check this machine, the store and the machines of a cluster before a study runs."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.verbs.options import ClusterOption, StoreOption
from trainer.config import UserError, counted, parse, require

if TYPE_CHECKING:
    from cluster.spec import ClusterSpec
    from orchestrator.health import Line
    from orchestrator.store.folder import Store

COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}
STEP_S = 6.0
"""The longest measurement of a step; a slow machine is told so."""
IMAGES = 4000
"""So many that an epoch is steps and little else."""
BATCH = 4
SMALL = {
    "data": {"name": "scenes", "size": [64, 128], "options": {"train": IMAGES, "val": 1, "size": [64, 128]}},
    "student": {"name": "segformer_tiny"},
    "optim": {"epochs": 1, "global_batch": BATCH},
}
"""The run whose step is timed."""
TO_JOIN = ("Ray", "token")
"""The checks without which Ray cannot be joined: it would try for minutes, and then end the process."""
WIDTH = 160
"""Characters of a line where the output is no terminal."""


def doctor(
    cluster: ClusterOption = None,
    store: StoreOption = None,
    step: Annotated[bool, typer.Option(help="time a training step of a small network")] = True,
) -> None:
    """Check this machine, the store and the machines of a cluster: a line each, with the remedy. Starts no run."""
    require("doctor", "torch", "ray", "mlflow", "optuna")
    from cluster.spec_file import load as load_spec
    from orchestrator.health import PROBLEM, folders_of, machine, requirements
    from orchestrator.prepare.machine_facts import facts
    from orchestrator.store.folder import Store, resolve

    spec = load_spec(cluster)
    where = Store(resolve(store, spec.store))  # not read here: whether that can be done is one of the checks
    if where.shared is not None:
        with contextlib.suppress(UserError):  # which that check tells
            where.shared.objects.delays_s = (1.0,)
    packages = [one.name for one in requirements() if one.name != "Python"]
    folders = folders_of(where)
    is_local = spec.address == "local"
    with ThreadPoolExecutor(1) as beside:  # the step is another process's, and both import torch
        timed = beside.submit(_step, spec) if step and is_local else None
        driver = facts(packages, folders.values(), spec.data_roots)
        lines = machine(driver, spec, where, folders)
        if timed is not None:
            lines.append(timed.result())
    if not is_local and all(line.state != PROBLEM for line in lines if line.what in TO_JOIN):
        lines += _nodes(spec, where, packages)
    _show(lines)
    problems = sum(line.state == PROBLEM for line in lines)
    print(f"{counted(problems, 'problem')} to mend" if problems else "nothing to mend")
    if problems:
        sys.exit(1)


def _nodes(spec: ClusterSpec, store: Store, packages: Sequence[str]) -> list[Line]:
    """Join Ray, and compare its machines with this one."""
    from orchestrator.health import PROBLEM, Line
    from orchestrator.running.machines.nodes_alike import differences
    from orchestrator.running.machines.shared_store import blind_nodes, what_all_need
    from orchestrator.running.ray_session import joined

    try:
        with joined(spec) as nodes:
            lines = differences(spec, packages, [str(store.root)], nodes)
            blind = blind_nodes(store, nodes)
    except UserError as error:
        return [Line("cluster", PROBLEM, str(error))]
    rule, remedy = what_all_need(store)
    return lines + [Line(where, PROBLEM, f"{rule}, and it does not", remedy) for where in blind]


def _step(spec: ClusterSpec) -> Line:
    """How long a training step of a small network takes on the device of a spec."""
    from orchestrator.health import OK, WARNING, Line
    from orchestrator.prepare.timed_steps import probe
    from orchestrator.store.folder import Store

    alone = spec.model_copy(update={"workers": 1, "micro_batch": None, "compile": False})
    with tempfile.TemporaryDirectory() as folder:  # the store is left as it is
        pace = probe({"step": parse(SMALL)}, alone, Store(Path(folder)), {}, STEP_S)["step"]
    if pace.epoch_s is None:
        return Line("step", WARNING, f"not timed within {STEP_S:g} s", "end what else runs here")
    device = "a GPU" if spec.gpus_per_worker else f"a CPU with {counted(spec.torch_threads, 'thread')}"
    step_s = pace.epoch_s * BATCH / IMAGES
    return Line("step", OK, f"{step_s * 1000:.0f} ms for {BATCH} images of 64 x 128 and segformer_tiny on {device}")


def _show(lines: Sequence[Line]) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH)
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("check", "", "found", "remedy"):
        grid.add_column(heading, overflow="fold")
    for line in lines:
        state = Text(line.state, style=COLOURS[line.state])
        grid.add_row(Text(line.what), state, Text(line.found), Text(line.remedy))
    console.print(grid)
