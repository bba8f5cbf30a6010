"""cluster lint: check a cluster spec for settings that would hang or waste money."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cluster.lint import Finding


def _misspelt(study: str, line: int | None = None) -> list[Finding]:
    """A study that is almost a packaged one: others may be in the store, or files of the image."""
    from ablations.study.schema import packaged
    from cluster.lint import Finding

    close = difflib.get_close_matches(study, packaged(), n=1, cutoff=0.9)
    if not close or study in packaged():
        return []
    return [Finding("study-unknown", f"entrypoint runs {study}", f"did you mean '{close[0]}'?", line)]


def lint_cluster(
    file: Annotated[str, typer.Argument(metavar="SPEC", help="a spec's name or file, or a launcher file")],
    cluster: Annotated[
        str | None, typer.Option("--cluster", help="spec to run on a launcher's machines [aws for ray-up-aws.yaml]")
    ] = None,
) -> None:
    """List what in a spec would hang or waste money, on this machine or on the machines of a launcher file."""
    from cluster.launchers.launcher_file import documents
    from cluster.launchers.lint_launcher import fits, is_launcher, launchers_beside, lint_launcher, read, spec_beside
    from cluster.lint import lint, runs_here
    from cluster.spec_file import load as load_spec
    from orchestrator.prepare.machine import here

    path = Path(file)
    if is_launcher(path):
        launcher = read(path)
        findings = [
            *lint_launcher(launcher, load_spec(cluster or spec_beside(path))),
            *_misspelt(launcher.study, launcher.command_line),
        ]
    else:
        spec, machine = load_spec(file), here()
        findings = lint(spec, *machine)
        if path.is_file():
            for beside in launchers_beside(path):
                findings += fits(read(beside), spec)
            keys = next((document for document in documents(path) if document.data), None)
            findings = [
                finding._replace(line=keys.line(finding.key) if keys and finding.key in keys.data else None)
                for finding in findings
            ]
        if not runs_here(spec, machine.gpus) and not spec.scales:
            print("not checked: whether a run fits, as this is not the machine where runs would run; check it there")
    for finding in findings:
        print(finding)
    if findings:
        sys.exit(1)
    print("nothing to mend")
