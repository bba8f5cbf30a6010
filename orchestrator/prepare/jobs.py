"""Jobs: a plan's runs with everything that can be known, and refused, before one of them starts."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations.study.plan import Run
from cluster.spec import ClusterSpec
from orchestrator.store.folder import Store
from trainer.config import TrainConfig, UserError, digest
from trainer.files.run_folder import LAST
from trainer.place import Place

LAUNCH = uuid.uuid4().hex[:12]
"""Names this start of the driver: the budgets of failed runs are counted for one."""


@dataclass(frozen=True)
class Job:
    """One run, checked: its id is known, its data is there, its folder is named."""

    study: str
    run: Run
    run_id: str
    place: Place

    @property
    def label(self) -> str:
        """How a person calls it: `TransKD-GL seed 1`, `trial 7`."""
        return self.run.arm if self.run.role == "trial" else f"{self.run.arm} seed {self.run.seed}"

    @property
    def epochs(self) -> int:
        """Epochs of the whole run."""
        return self.run.config.optim.epochs

    def event(self, kind: str, **more: Any) -> dict[str, Any]:
        """A ledger event about this run."""
        who = {"study": self.study, "arm": self.run.arm, "seed": self.run.seed, "role": self.run.role}
        return {"event": kind, "run_id": self.run_id, "key": self.run.config.key, **who, **more}

    def settings(self, spec: ClusterSpec, store: Store) -> dict[str, Any]:
        """The plain data a trial is started with."""
        resources = {"CPU": spec.cpus_per_worker} | ({"GPU": spec.gpus_per_worker} if spec.gpus_per_worker else {})
        return {
            "run_id": self.run_id,
            "config": self.run.config.model_dump(mode="json"),
            "place": vars(self.place),
            "workers": spec.workers,
            "resources": resources,
            "retries": spec.retries.model_dump(),
            "launch": LAUNCH,
            "refused": None,
            "fits": str(store.cache / "micro_batch" / f"{self._footprint(spec)}.json"),
            "ray_dir": str(store.ray_dir),
            "store": {"root": str(store.root), "identity": store.identity},
        }

    def _footprint(self, spec: ClusterSpec) -> str:
        """Names the runs that need the same memory and are given the same: seeds, rates and weights may differ."""
        config = self.run.config
        shape = config.model_dump(mode="json", include={"student", "teacher", "data"})
        optim = config.optim.model_dump(include={"global_batch", "norm_batch", "precision"})
        paths = {name: term.options for name, term in config.active.items()}
        given = spec.model_dump(include={"workers", "cpus_per_worker", "gpus_per_worker", "micro_batch"})
        return digest([shape, optim, paths, given])


class Preparer:
    """Makes jobs of runs: checks each structure, packs each data set, and names what is computed."""

    def __init__(self, study: str, spec: ClusterSpec, store: Store, roots: Mapping[str, Path]) -> None:
        self.study = study
        self.spec = spec
        self.store = store
        self.roots = {**{name: Path(folder) for name, folder in spec.data_roots.items()}, **roots}
        self._ids: dict[str, str] = {}

    def place(self, config: TrainConfig, run_id: str = "", teacher: Path | None = None) -> Place:
        """Where a config's run happens."""
        device = "cuda" if self.spec.gpus_per_worker else "cpu"
        return Place(
            out_dir=self.store.run_dir(run_id),
            data_root=self.roots.get(config.data.name),
            cache_dir=self.store.cache,
            device=device,
            threads=self.spec.torch_threads,
            micro_batch=self.spec.micro_batch,
            teacher=teacher,
        )

    def check_root(self, config: TrainConfig) -> None:
        """Refuse a data set's folder that is missing or laid out otherwise, without reading a picture."""
        from trainer.data import check_root

        check_root(config.data, self.roots.get(config.data.name), self.store.cache)

    def check(self, config: TrainConfig) -> dict[str, float]:
        """Refuse what cannot run here; the deployed student's cost. Raises UserError."""
        from trainer.training.build import check

        config.optim.shares(self.spec.workers, self.spec.micro_batch)
        return check(config, self.store.cache)

    def job(self, run: Run, teachers: Mapping[str, Job]) -> Job:
        """The job of a run whose teacher, if it needs one, is among `teachers` by key. Packs its data."""
        from trainer.training.build import run_id

        identity = run_id(run.config, self.place(run.config), self._ids)
        teacher = None
        if run.needs is not None:
            if run.needs not in teachers:
                raise UserError(f"{run.arm} needs teacher {run.needs}, which the plan does not train")
            teacher = teachers[run.needs].place.out_dir / LAST
        return Job(self.study, run, identity, self.place(run.config, identity, teacher))
