"""Attempts: whether a failed run is retried, by a budget for each cause, and with which micro-batch.

Budgets hold for one launch. Retries are counted in the run's folder, as the process that counts may die.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.store.run_folder import RETRIES, read_retries
from trainer.config import OptimConfig, parse
from trainer.files.failure import ASSERT, Failure
from trainer.files.atomic import whole_json
from trainer.files.run_folder import write_text


def halved(optim: OptimConfig, workers: int, micro_batch: int | None) -> int | None:
    """The largest micro-batch of at most half as many samples; None where BatchNorm groups allow none."""
    _, now = optim.shares(workers, micro_batch)
    return next((n for n in optim.micro_batches(workers) if n <= now // 2), None)


class Attempts:
    """The retry budgets of a run in one launch. `job` are the settings of its trial (`Job.settings`)."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self.job = job
        self.out = Path(job["place"]["out_dir"])
        self.optim = parse(job["config"]).optim
        given: int | None = job["place"]["micro_batch"]
        tried = [retry["micro_batch"] for retry in self._earlier() if "micro_batch" in retry]
        self.used = tried[-1] if tried else given
        """Micro-batch of the failed attempt; where its process died, the last one that is recorded."""

    def begin(self) -> int | None:
        """Begin an attempt; returns its micro-batch."""
        self.used = self.micro_batch
        return self.used

    @property
    def micro_batch(self) -> int | None:
        """The spec's micro-batch, or a smaller one that runs of the same structure needed in this launch."""
        given: int | None = self.job["place"]["micro_batch"]
        found = whole_json(Path(self.job["fits"])) or {}
        return int(found["micro_batch"]) if found.get("launch") == self.job["launch"] else given

    def record_retry(self, failure: Failure) -> bool:
        """Whether the run is retried. If so this is recorded; when out of memory, with a smaller micro-batch."""
        line = {"launch": self.job["launch"], **failure._asdict()}
        budget = {"preempted": "auto", **self.job["retries"]}.get(failure.cause, 0)
        spent = sum(retry["cause"] == failure.cause for retry in self._earlier())
        if spent >= (math.inf if budget == "auto" else budget):
            return False
        if self._recurs(failure):
            return False
        if failure.cause == "memory":
            less = halved(self.optim, self.job["workers"], self.used)
            if less is None:
                return False
            # parallel runs fail together: a micro-batch that another run has reduced is not halved again
            line["micro_batch"] = min(less, self.micro_batch or less)
            self._remember(line["micro_batch"])
        self.out.mkdir(parents=True, exist_ok=True)
        write_text(self.out / RETRIES, "".join(json.dumps(each) + "\n" for each in [*read_retries(self.out), line]))
        return True

    def explained(self, failure: Failure) -> Failure:
        """A final failure; out of memory with what was tried and a remedy; a repeated device-side assert as a bug."""
        if self._recurs(failure):
            remedy = "run it on the CPU (gpus_per_worker: 0), where the error names its line"
            return Failure(
                "bug", f"an index out of range in two attempts, no fault of the GPU: {failure.reason}; {remedy}"
            )
        if failure.cause != "memory":
            return failure
        _, now = self.optim.shares(self.job["workers"], self.used)
        if halved(self.optim, self.job["workers"], self.used) is None:
            group = self.optim.effective_norm_batch
            why = f"which a BatchNorm group of {group} (optim.norm_batch) does not allow to be halved"
        else:
            why = f"and retries.memory is {self.job['retries']['memory']}"
        remedy = "give a run more memory or more workers, or choose a smaller data.size"
        return Failure(failure.cause, f"{failure.reason} with micro_batch {now}, {why}; {remedy}")

    def _recurs(self, failure: Failure) -> bool:
        """Whether a device-side assert has come before: an index out of range comes again, a GPU's fault does not."""
        return ASSERT in failure.reason and any(ASSERT in retry["reason"] for retry in self._earlier())

    def _earlier(self) -> list[dict[str, Any]]:
        """The retries of this launch."""
        return [retry for retry in read_retries(self.out) if retry["launch"] == self.job["launch"]]

    def _remember(self, micro_batch: int) -> None:
        """Record the micro-batch for other runs of this structure, so that they need not fail first."""
        path = Path(self.job["fits"])
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({"launch": self.job["launch"], "micro_batch": micro_batch}) + "\n")
