"""Attempts: whether a failed run is retried, by a budget for each cause, with which micro-batch, beside which others.

Budgets hold for one launch. Retries are counted in the run's folder, as the process that counts may die.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.store.run_folder import RETRIES, read_retries
from trainer.config import OptimConfig, masked, parse
from trainer.files.atomic import whole_json
from trainer.files.failure import ASSERT, Failure
from trainer.files.run_folder import read_epochs, write_text


def halved(optim: OptimConfig, workers: int, micro_batch: int | None) -> int | None:
    """The largest micro-batch of at most half as many samples; None where BatchNorm groups allow none."""
    _, now = optim.shares(workers, micro_batch)
    return next((n for n in optim.micro_batches(workers) if n <= now // 2), None)


def side_by_side(left: Sequence[Attempts], most: int) -> list[Attempts]:
    """Those that train now: the first and others with its micro-batch, `most` runs at most, and no more than the memory
    has held in this launch."""
    first = left[0].micro_batch
    found = _recorded(left[0].job, "cohorts", "runs")
    return [each for each in left if each.micro_batch == first][: most if found is None else min(most, found)]


def remember_shortage(job: Mapping[str, Any], runs: int) -> None:
    """Record that the memory does not hold so many runs like this one in one process: half as many are tried next."""
    found = _recorded(job, "cohorts", "runs")
    _record(job, "cohorts", "runs", min(-(-runs // 2), found or runs))


def _recorded(job: Mapping[str, Any], file: str, name: str) -> int | None:
    """What runs of this launch have found out for others like them, in the file that the settings name; or None."""
    found = whole_json(Path(job[file])) or {}
    return int(found[name]) if found.get("launch") == job["launch"] else None


def _record(job: Mapping[str, Any], file: str, name: str, value: int) -> None:
    path = Path(job[file])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"launch": job["launch"], name: value}) + "\n")


class Attempts:
    """The retry budgets of a run in one launch. `job` are the settings of its trial (`Job.settings`)."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.run_id: str = job["run_id"]
        self.out = Path(job["place"]["out_dir"])
        self.optim = parse(job["config"]).optim
        given: int | None = job["place"]["micro_batch"]
        self.workers: int = job["workers"]
        """Number of the failed attempt's workers; `trial` sets it."""
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
        found = _recorded(self.job, "fits", "micro_batch")
        return given if found is None else found

    def record_retry(self, failure: Failure) -> bool:
        """Whether the run is retried. If so this is recorded; when out of memory, with a smaller micro-batch."""
        if not self.may_retry(failure):
            return False
        line = {"launch": self.job["launch"], "cause": failure.cause, "reason": masked(failure.reason)}
        if self._is_elastic:
            line["saved"] = self._saved()
        if failure.cause == "memory":
            less = halved(self.optim, self.workers, self.used)
            assert less is not None
            # parallel runs fail together: a micro-batch that another run has reduced is not halved again
            line["micro_batch"] = min(less, self.micro_batch or less)
            _record(self.job, "fits", "micro_batch", line["micro_batch"])
        self.out.mkdir(parents=True, exist_ok=True)
        write_text(self.out / RETRIES, "".join(json.dumps(each) + "\n" for each in [*read_retries(self.out), line]))
        return True

    def may_retry(self, failure: Failure) -> bool:
        """Whether the run may be retried; records nothing."""
        budget = {"preempted": "auto", **self.job["retries"]}.get(failure.cause, 0)
        spent = sum(retry["cause"] == failure.cause for retry in self._earlier() if self._counts(retry))
        if spent >= (math.inf if budget == "auto" else budget) or self._recurs(failure):
            return False
        return failure.cause != "memory" or halved(self.optim, self.workers, self.used) is not None

    def _counts(self, retry: Mapping[str, Any]) -> bool:
        """Whether a retry is counted: of a run that may go on with fewer workers no loss before its last checkpoint,
        as machines that come and go would end it in the midst of its progress."""
        return not self._is_elastic or retry["cause"] != "lost" or retry.get("saved", 0) >= self._saved()

    @property
    def _is_elastic(self) -> bool:
        """Whether the number of workers may change."""
        return len(self.job["group_sizes"]) > 1

    def _saved(self) -> int:
        """The number of epochs that the run need not repeat."""
        done, every = len(read_epochs(self.out)), self.job["place"]["checkpoint_every"]
        return done - done % every

    def explained(self, failure: Failure) -> Failure:
        """A final failure; out of memory with what was tried and a remedy; a repeated device-side assert as a bug."""
        if self._recurs(failure):
            remedy = "run it on the CPU (gpus_per_worker: 0), where the error names its line"
            return Failure(
                "bug", f"an index out of range in two attempts, no fault of the GPU: {failure.reason}; {remedy}"
            )
        if failure.cause != "memory":
            return failure
        _, now = self.optim.shares(self.workers, self.used)
        if halved(self.optim, self.workers, self.used) is None:
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
