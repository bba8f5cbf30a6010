"""Attempts: whether a run that failed is tried again, for each cause by a budget of its own, and with what micro-batch.

Budgets are those of one launch: who starts a study again has looked at it. They are counted in the run's folder,
because the process that counts may be the one that dies.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.store.run_folder import FILE, read_retries
from trainer.config import OptimConfig, parse
from trainer.files.failure import Failure
from trainer.files.run_folder import write_text


def halved(optim: OptimConfig, workers: int, micro_batch: int | None) -> int | None:
    """The largest micro-batch of at most half as many samples that holds whole BatchNorm groups; None if none does."""
    share, now = optim.shares(workers, micro_batch)
    return max(
        (n for n in range(optim.effective_norm_batch, now // 2 + 1, optim.effective_norm_batch) if share % n == 0),
        default=None,
    )


class Attempts:
    """What is left of a run's budgets in one launch. `job` is what its trial was started with (`Job.settings`)."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self.job = job
        self.out = Path(job["place"]["out_dir"])
        self.optim = parse(job["config"]).optim
        given: int | None = job["place"]["micro_batch"]
        tried = [retry["micro_batch"] for retry in self._earlier() if "micro_batch" in retry]
        self.used = tried[-1] if tried else given
        """Micro-batch of the attempt that failed; where its process died, the last that this run is known to have."""

    def begin(self) -> int | None:
        """An attempt begins: its micro-batch."""
        self.used = self.micro_batch
        return self.used

    @property
    def micro_batch(self) -> int | None:
        """Samples in a forward pass: the spec's, or what runs of the same structure in this launch found to fit."""
        given: int | None = self.job["place"]["micro_batch"]
        try:
            found = json.loads(Path(self.job["fits"]).read_text())
        except FileNotFoundError:
            return given
        return int(found["micro_batch"]) if found["launch"] == self.job["launch"] else given

    def again(self, failure: Failure) -> bool:
        """Whether one more attempt follows. Then it is written down, and with less memory where that was the cause."""
        line = {"launch": self.job["launch"], **failure._asdict()}
        budget = {"preempted": "auto", **self.job["retries"]}.get(failure.cause, 0)
        spent = sum(retry["cause"] == failure.cause for retry in self._earlier())
        if spent >= (math.inf if budget == "auto" else budget):
            return False
        if failure.cause == "memory":
            less = halved(self.optim, self.job["workers"], self.used)
            if less is None:
                return False
            # runs side by side fail together: what another has found in the meantime is not halved again
            line["micro_batch"] = min(less, self.micro_batch or less)
            self._remember(line["micro_batch"])
        self.out.mkdir(parents=True, exist_ok=True)
        write_text(self.out / FILE, "".join(json.dumps(each) + "\n" for each in [*read_retries(self.out), line]))
        return True

    def told(self, failure: Failure) -> Failure:
        """A last failure with all that a reader needs: what was tried, and what would help."""
        if failure.cause != "memory":
            return failure
        _, now = self.optim.shares(self.job["workers"], self.used)
        if halved(self.optim, self.job["workers"], self.used) is None:
            group = self.optim.effective_norm_batch
            why = f"which a BatchNorm group of {group} (optim.norm_batch) does not let be halved"
        else:
            why = f"and retries.memory is {self.job['retries']['memory']}"
        remedy = "give a run more memory or more workers, or choose a smaller data.size"
        return Failure(failure.cause, f"{failure.reason} with micro_batch {now}, {why}; {remedy}")

    def _earlier(self) -> list[dict[str, Any]]:
        """The retries of this launch."""
        return [retry for retry in read_retries(self.out) if retry["launch"] == self.job["launch"]]

    def _remember(self, micro_batch: int) -> None:
        """For the other runs of this structure, which then need not fail to find out."""
        path = Path(self.job["fits"])
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({"launch": self.job["launch"], "micro_batch": micro_batch}) + "\n")
