"""Claims: the runs that this driver may train. Drivers that need one run train it once: the first to claim it trains,
and the others use its result."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType

from orchestrator.store.folder import Store
from orchestrator.store.leases import Claim
from orchestrator.store.ledger import Ledger
from orchestrator.store.objects.working_copy import WorkingClaim
from orchestrator.store.run_folder import record_end


class Claims:
    """The claims of the driver of `study`; as a context manager it gives all back at the end."""

    def __init__(self, study: str, store: Store, ledger: Ledger) -> None:
        self.study = study
        self.store = store
        self.ledger = ledger
        self._held: dict[str, Claim | WorkingClaim] = {}
        self._paused: dict[str, str] = {}
        """Run id -> when its status changed last, of the runs that have paused here and may go on elsewhere."""

    def __enter__(self) -> Claims:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for run_id in list(self._held):
            self.give_back(run_id)

    def take(self, run_id: str) -> bool:
        """Claim a run; False where another driver trains it. What a dead driver left of it is recorded first."""
        if run_id in self._held:
            return True
        claim = self.store.leases.claim(run_id, self.study)
        if claim is None:
            return False
        self._held[run_id] = claim
        self.ledger.look_closely()
        run = self.ledger.run(run_id)
        if run is not None and run.status == "running" and run.changed != self._paused.pop(run_id, None):
            record_end(self.ledger, self.store, run_id)
        return True

    def take_all(self, run_ids: Iterable[str]) -> bool:
        """Claim all of these runs or none: two drivers that each hold a part would wait for each other."""
        new: list[str] = []
        for run_id in run_ids:
            if run_id in self._held:
                continue
            if not self.take(run_id):
                for taken in new:
                    self.give_back(taken)
                return False
            new.append(run_id)
        return True

    def give_back(self, run_id: str) -> None:
        """Let other drivers use a run that has ended, or train one that has not."""
        if (claim := self._held.pop(run_id, None)) is not None:
            run = self.ledger.run(run_id)
            if run is not None and run.status == "running" and run.trained_by == self.study:
                self._paused[run_id] = run.changed
            claim.give_back()

    def claimant(self, run_id: str) -> str:
        """Who trains a run that another driver has claimed."""
        return self.store.leases.claimant(run_id)

    def other(self, run_id: str) -> str:
        """Who else trains a run; empty where this driver may."""
        mine = run_id in self._held
        if not self.take(run_id):
            return self.claimant(run_id)
        if not mine:
            self.give_back(run_id)
        return ""
