"""A study, and the ledger of earlier runs by which its time is estimated."""

from ablations.study.plan import expand
from ablations.study.schema import Study
from cluster.spec import ClusterSpec
from orchestrator.prepare.estimate import estimate
from orchestrator.state.study_state import StudyState
from orchestrator.store.ledger import Ledger
from trainer.files.run_folder import environment

BASE = {
    "data": {"name": "scenes", "size": [64, 128], "select": 0.1},
    "student": {"name": "segformer_tiny"},
    "teacher": {"name": "segformer_mini", "train": {"epochs": 4}},
    "optim": {"lr": 1.0e-3, "epochs": 10, "global_batch": 8, "norm_batch": 4},
    "distill": {"csf": {}},
}
ARMS = {"student alone": {"distill": {}}, "csf": {}}
GPU = ClusterSpec(address="auto", gpus_per_worker=1, cpus_per_worker=2, concurrency=2, price_per_gpu_hour=3.0)
CPU = ClusterSpec(address="auto", concurrency=2)
SECONDS = {"segformer_mini": 5.0, "student alone": 1.0, "csf": 2.0}
"""Of an epoch, in the ledgers below."""
AROUND = 7.0
"""Seconds of a run that are no epoch's."""


def make(**changes):
    """The study: a teacher and two arms of two seeds."""
    return Study.model_validate({"name": "s", "base": BASE, "variants": ARMS, "seeds": 2, **changes})


def record(store, study, spec, *, names=("student alone", "csf"), name="", processor="", config=True, id_of=None):
    """Finish seed 0 of the arms named, and the teacher, as on the spec's device; the run ids, invented unless `id_of`
    gives those of configs."""
    ledger, found = Ledger(store.ledger), []
    device = "cuda:0" if spec.gpus_per_worker else "cpu"
    on = environment(device, name, spec.torch_threads, spec.workers)
    on |= {"processor": processor} if processor else {}
    for run in expand(study):
        if run.seed or run.arm not in (*names, "teacher segformer_mini"):
            continue
        run_id = id_of(run.config) if id_of else f"r{len(ledger.outcomes())}"
        who = {"run_id": run_id, "key": run.key, "study": study.name, "arm": run.arm, "seed": 0}
        asked = {"config": run.config.model_dump(mode="json")} if config else {}
        ledger.append({"event": "started", "time": "2026-01-01T00:00:00.000+00:00", **who, **asked})
        epochs, pace = run.config.optim.epochs, SECONDS.get(run.arm, SECONDS["segformer_mini"])
        for epoch in range(1, epochs + 1):
            metrics = {"epoch": epoch, "val/miou": 1.0, "seconds": pace}
            ledger.append({"event": "epoch", "run_id": who["run_id"], "metrics": metrics})
        end = f"2026-01-01T00:{(epochs * pace + AROUND) // 60:02.0f}:{(epochs * pace + AROUND) % 60:02.0f}.000+00:00"
        ledger.append({"event": "finished", "time": end, **who, "last": metrics, "environment": on})
        folder = store.run_dir(who["run_id"])
        folder.mkdir(parents=True)
        (folder / "last.pt").write_bytes(bytes(1_000_000))
        (folder / "best.pt").write_bytes(bytes(500_000))
        found.append(who["run_id"])
    return found


def of(study, store, spec, **options):
    """The estimate of a study, without timing steps."""
    return estimate(StudyState(study, Ledger(store.ledger)), spec, store, {}, **{"tries": False, **options})


def searching(space, words=(), **changes):
    """A search of ten trials in a space; `words` are other settings of the search."""
    return make(variants=None, seeds=1, search={"trials": 10, "space": space, **dict(words)}, **changes)
