"""explain: print a study's table with everything that affects how its rows are read, in sentences."""

from __future__ import annotations

from orchestrator.verbs.options import ClusterOption, StoreOption, StudyOrBundle, opened


def explain(study: StudyOrBundle, store: StoreOption = None, cluster: ClusterOption = None) -> None:
    """Explain a study's table: the test, the intervals, the seeds lacking, the costs, and what went wrong."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    from orchestrator.report.table import table
    from orchestrator.state.study_state import StudyState
    from orchestrator.store.ledger import Ledger
    from orchestrator.terminal.table import show

    with opened(study, store, cluster) as (loaded, where):
        found, console = table(StudyState(loaded, Ledger(where.ledger))), Console(highlight=False)
    show(found, console)
    console.print()
    for part in (found, *found.more):
        for text in part.explained:
            if console.is_terminal:
                console.print(Padding(Text(text), (0, 0, 0, 1)))
            else:
                console.file.write(f" {text}\n")
