"""What MLflow costs a driver: CPU seconds of the tracking thread beside all else that the driver does for its runs.

Drives runs at a pace as Tune would, with MLflow in SQLite; the runs leave no checkpoints, so no models are sent. Run:
python benchmarks/tracking_cost.py [--runs 10] [--epoch 0.5]
"""

from __future__ import annotations

import argparse
import io
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import yaml
from driver_cost import result
from rich.console import Console
from scale import EPOCHS, alone
from scale_store import metrics

from ablations.study.plan import expand
from ablations.study.schema import load
from cluster.spec import ClusterSpec
from orchestrator.prepare.jobs import Preparer
from orchestrator.running.callbacks import RunCallbacks
from orchestrator.state.study_state import StudyState
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger
from orchestrator.terminal.log_lines import Lines, StudyProgress
from orchestrator.tracking.mirror import Mirror
from trainer.files.run_folder import append_epoch, write_result


class ThreadCost:
    """Adds up the CPU seconds of calls in whichever thread they run."""

    def __init__(self) -> None:
        self.cpu_s = 0.0

    def of(self, call: Callable[[], object]) -> Callable[[], object]:
        """The same call, measured."""

        def measured() -> object:
            before = time.thread_time()
            try:
                return call()
            finally:
                self.cpu_s += time.thread_time() - before

        return measured


def drive(store: Store, runs: int, epoch_s: float) -> tuple[float, float, float]:
    """CPU seconds a run of tracking and of the driver's own calls, and the seconds that tracking took at the end."""
    file = store.root / "study.yaml"
    file.write_text(yaml.safe_dump(alone(5 * -(-runs // 5))), encoding="utf-8")
    study, spec, ledger = load(str(file)), ClusterSpec(), Ledger(store.ledger)
    preparer = Preparer(study.name, spec, store, {})
    jobs = {job.run_id: job for job in map(preparer.job, expand(study)[:runs])}
    mirror, tracking = Mirror(study.name, store), ThreadCost()
    send = mirror.sender.send
    mirror.sender.send = lambda name, call, *rest: send(name, tracking.of(call), *rest)  # type: ignore[method-assign]
    view = Lines(Console(file=io.StringIO()), StudyProgress(StudyState(study, ledger)))
    watching, rng = RunCallbacks(jobs, ledger, mirror, view), random.Random(0)
    before = time.thread_time()
    for job in jobs.values():
        trial, out = SimpleNamespace(config={"job": job.settings(spec, store)}), job.place.out_dir
        out.mkdir(parents=True)
        watching.on_trial_start(0, [], trial)
        for epoch in range(1, EPOCHS + 1):
            time.sleep(epoch_s)
            last = metrics(rng, epoch, 0.0)
            append_epoch(out, last)
            watching.on_trial_result(0, [], trial, {**last, "training_iteration": epoch, "trial_id": "a"})
        write_result(out, result(job.run_id, last))
        watching.on_trial_complete(0, [], trial)
    own, ended = time.thread_time() - before, time.perf_counter()
    assert mirror.close([], None, finished=True) == set()
    return tracking.cpu_s / runs, own / runs, time.perf_counter() - ended


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--epoch", type=float, default=0.5, help="seconds of an epoch")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tracking, own, last_s = drive(Store(Path(folder)), given.runs, given.epoch)
    print(f"CPU seconds a run of {EPOCHS} epochs of {given.epoch:g} s: tracking {tracking:.3f}, all else {own:.3f}")
    print(f"tracking takes {tracking / (tracking + own):.0%} of the driver's time; its end took {last_s:.1f} s")


if __name__ == "__main__":
    main()
