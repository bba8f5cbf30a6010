"""How well `transkd plan` foretells: the estimate by a probe, the study run, and the estimate by the ledger it left.

Prints each estimate over what the study took. Run: python benchmarks/estimate.py [STUDY]          (default: demo)
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from ablations.study.schema import Study, load
from cluster.spec_file import load as load_spec
from orchestrator.prepare.estimate import Estimate, estimate
from orchestrator.state.study_state import StudyState
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger
from trainer.config import override

EVENTS = ("started", "finished", "stopped")


def foretold(study: Study, store: Store, *, probe: bool) -> Estimate:
    """The estimate of the whole study on this machine."""
    ledger = Ledger(store.ledger)
    return estimate(StudyState(study, ledger), load_spec(), store, {}, tries=probe)


def unfinished(study: Study) -> Study:
    """The same study with other seeds, its teacher's too: nothing of it is in the ledger, but its structures are."""
    base = override(study.base, {"teacher.train.seed": 1000})
    return study.model_copy(update={"seeds": tuple(seed + 1000 for seed in study.seeds), "base": base})


def held(store: Store) -> float:
    """Hours that the runs took between their starts and their ends, added up."""
    seconds, starts = 0.0, {}
    for event in Ledger(store.ledger).events():
        if event["event"] in EVENTS:
            at = datetime.fromisoformat(event["time"])
            starts.setdefault(event["run_id"], at)
            seconds += (at - starts[event["run_id"]]).total_seconds()
    return seconds / 3600


def main() -> None:
    """Measure and print."""
    name = sys.argv[1] if len(sys.argv) > 1 else "demo"
    study = load(name)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store")
        probed = foretold(study, store, probe=True)
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "orchestrator", "run", name, "--store", str(store.root)], check=True)
        hours = (time.perf_counter() - started) / 3600
        kept = sum(path.stat().st_size for path in store.runs_dir.rglob("*.pt")) / 1e9
        packed = sum(path.stat().st_size for path in (store.cache / "packed").glob("*.arrow")) / 1e9
        shutil.rmtree(store.cache / "probes")
        known = foretold(unfinished(study), store, probe=False)
        print(f"{study.name}: {hours * 60:.1f} min, {held(store):.3f} hours of runs, {kept + packed:.3f} GB")
        # What an earlier run has packed is packed: the ledger's estimate is of checkpoints alone.
        for what, found, disk in (("probe", probed, kept + packed), ("ledger", known, kept)):
            assert found.hours and found.device_hours and found.gigabytes
            pairs = {"clock": (found.hours, hours), "hours of runs": (found.device_hours, held(store))}
            pairs |= {"disk": (found.gigabytes, disk)}
            words = ", ".join(f"{name} {said.likely / measured:.2f}" for name, (said, measured) in pairs.items())
            print(f"by {what:6} over measured: {words}")


if __name__ == "__main__":
    main()
