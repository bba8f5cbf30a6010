"""run: what a study lacks, and its table; also the door of a Ray job."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from orchestrator.verbs.options import (
    ClusterOption,
    RootsOption,
    StoreOption,
    StudyName,
    WorkersOption,
    roots_of,
    store_of,
)


def run(
    study: StudyName,
    cluster: ClusterOption = None,
    store: StoreOption = None,
    data_root: RootsOption = None,
    workers: WorkersOption = None,
) -> None:
    """Run what a study lacks, and print its table. Run again: nothing is done twice."""
    if launch(study, cluster, store, data_root or [], workers):
        sys.exit(1)


def launch(
    study: str,
    cluster: str | None = None,
    store: Path | None = None,
    data_roots: list[str] | None = None,
    workers: int | None = None,
    *,
    join: bool = False,
) -> int:
    """What `transkd run` and `ablations/grid.py` do, and how many runs did not finish, trials of a search aside.

    `join` takes the Ray that is here instead of the spec's own.
    """
    from ablations.study import load
    from cluster.spec import load as load_spec
    from cluster.spec import with_workers
    from orchestrator.mirror import Mirror
    from orchestrator.progress import view
    from orchestrator.report import show, write
    from orchestrator.results import table

    console = Console(highlight=False)
    loaded = load(study)
    spec = load_spec(cluster)
    if workers is not None:
        spec = with_workers(spec, workers)
    if join and spec.address == "local":
        spec = spec.model_copy(update={"address": "auto"})
    where = store_of(store, cluster)
    from orchestrator.launch import Launch

    job = Launch(loaded, spec, where, roots_of(loaded, data_roots or []))
    job.prepare(lambda text: console.print(Text(f"{loaded.name}: {text}", style="dim")))
    jobs = [*job.teachers.values(), *job.arms]
    total = len(jobs) + sum(search.search.trials for search in job.searches if search.search)
    said = f"{loaded.name}: {total} runs, {job.left()} to do; store {where.root}"
    console.print(Text(said, style="dim"), soft_wrap=True)
    with where.lease():
        mirror = Mirror(loaded.name, where)
        try:
            job.run(mirror, lambda count, epochs: view(console, count, epochs))
        finally:
            result = table(loaded, where)
            write(result, where.root / "studies" / loaded.name)
            mirror.close(result)
    console.print()
    show(result, console)
    failed = job.missing(jobs)
    if failed:
        why = job.ledger.outcomes()[failed[0].run_id].reason
        print(f"failed: {len(failed)} of {total} runs, the first {failed[0].label}: {why}", file=sys.stderr)
    return len(failed)
