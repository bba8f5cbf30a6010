"""cluster init: write a launcher file and its cluster spec into the current folder, filled in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trainer.config import UserError


def init_cluster(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="aws, gcp, hosts, kuberay, raycluster, slurm or slurm-array")
    ],
    fill: Annotated[
        list[str] | None, typer.Option("--fill", metavar="NAME=VALUE", help="what to fill in, again for each")
    ] = None,
) -> None:
    """Write the launcher and spec of a cluster into this folder, a checkout's root, and say what is left to fill in."""
    from cluster.fill_in import ANSWERS, filled_in
    from cluster.launchers.lint_launcher import lint_launcher, read
    from cluster.spec_file import load

    for item in fill or []:
        if "=" not in item:
            known = ", ".join(ANSWERS.get(kind, {}))
            raise UserError(f"--fill must be NAME=VALUE but got {item}; names for {kind}: {known}")
    texts = filled_in(kind, {name: value for name, _, value in (item.partition("=") for item in fill or [])})
    for file in texts:
        if Path(file).exists():
            raise UserError(f"{file} is there already, and is not written over; move it away, or use another folder")
    for file, text in texts.items():
        Path(file).write_text(text, encoding="utf-8")
    launcher, spec = texts
    print(f"wrote {launcher} and {spec}; the first lines of {launcher} say how to start it")
    for finding in lint_launcher(read(Path(launcher)), load(spec)):
        print(finding)
