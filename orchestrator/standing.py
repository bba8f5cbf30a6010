"""Standing: where a study stands, beside a driver or without one. Reads, and never writes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ablations.plan import expand
from ablations.study import Study
from orchestrator.ledger import Ledger
from orchestrator.results import known
from orchestrator.store import Store
from trainer.config import parse
from trainer.record import read_epochs

ORDER = ("finished", "running", "interrupted", "stopped", "failed", "missing")


@dataclass(frozen=True)
class Part:
    """One run of a study: its state, and the epochs done of those it has."""

    label: str
    state: str
    epoch: int
    epochs: int
    miou: float | None = None


@dataclass(frozen=True)
class Standing:
    """All runs of a study, and who drives its store, if anybody does."""

    parts: list[Part]
    driver: str | None

    @property
    def counts(self) -> dict[str, int]:
        """Runs by state, of the states there are."""
        found = [part.state for part in self.parts]
        return {state: found.count(state) for state in ORDER if state in found}


def standing(study: Study, store: Store) -> Standing:
    """Where the study stands, from the ledger and the runs' folders."""
    ledger, driver = Ledger(store.ledger), store.driver()
    parts = []
    for label, epochs, run_id, status in _runs(study, ledger):
        # The ledger knows that a run began; whether anybody still trains it, the lease does.
        state = "interrupted" if status == "running" and driver is None else status
        done = read_epochs(store.run_dir(run_id)) if run_id else []
        miou = next((epoch["val/miou"] for epoch in reversed(done) if "val/miou" in epoch), None)
        parts.append(Part(label, state, len(done), epochs, miou))
    return Standing(parts, driver)


def _runs(study: Study, ledger: Ledger) -> Iterator[tuple[str, int, str, str]]:
    """Label, epochs, run id (empty before the first start) and the ledger's status of each run."""
    found = known(study, ledger)
    for run in expand(study):
        entry = found.get(run.key)
        label = f"{run.arm} seed {run.seed}"
        yield label, run.config.optim.epochs, entry.run_id if entry else "", entry.status if entry else "missing"
    if study.search is not None:
        from orchestrator.search import proposals

        epochs = parse(study.base).optim.epochs
        history = proposals(study, ledger.events())
        for run_id, trial in history:
            yield f"trial {trial.number}", epochs, run_id, trial.state
        for number in range(len(history), study.search.trials):
            yield f"trial {number}", epochs, "", "missing"
