"""Jobs: a plan's runs with their ids, data and folders, checked before one of them starts."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.study.plan import Run
from cluster.spec import ClusterSpec, spec_of
from orchestrator.state.study_state import StudyState
from orchestrator.store.folder import Store
from trainer.config import (
    NUMERICS_VERSION,
    Sources,
    TrainConfig,
    UserError,
    counted,
    data_key,
    digest,
    missing,
    refuse_secrets,
    weight_names,
)
from trainer.files.run_folder import LAST
from trainer.place import Place

if TYPE_CHECKING:
    from trainer.training.sources import SourceReader

LAUNCH = uuid.uuid4().hex[:12]
"""The id of this driver process: retry budgets are counted per launch."""


@dataclass(frozen=True)
class Job:
    """One run, checked: its id is known, its data is there, its folder is named."""

    study: str
    run: Run
    run_id: str
    place: Place

    @property
    def label(self) -> str:
        """Its name for people: `TransKD-GL seed 1`, `trial 7`."""
        return self.run.label

    @property
    def epochs(self) -> int:
        """The number of epochs of the run."""
        return self.run.config.optim.epochs

    def event(self, kind: str, **more: Any) -> dict[str, Any]:
        """A ledger event about this run."""
        who = {"study": self.study, "arm": self.run.arm, "seed": self.run.seed, "role": self.run.role}
        return {"event": kind, "run_id": self.run_id, "key": self.run.key, **who, **more}

    def settings(self, spec: ClusterSpec, store: Store, at_once: int | None = None) -> dict[str, Any]:
        """The settings of its Tune trial, as plain data; with the spec's overrides of its arm and role. `at_once`: how
        many runs share the machines, where it is known better than by the spec."""
        spec = spec_of(spec, self.run.role, self.run.arm)
        sizes = self.run.config.optim.group_sizes(spec.least_workers, spec.most_workers, spec.micro_batch)
        resources = {"CPU": spec.cpus_per_worker} | ({"GPU": spec.gpus_per_worker} if spec.gpus_per_worker else {})
        return {
            "run_id": self.run_id,
            "config": self.run.config.whole(),
            "place": vars(self.place),
            "workers": sizes[-1],
            "group_sizes": sizes,
            "at_once": at_once or spec.concurrency,
            "resources": resources,
            "retries": spec.retries.model_dump(),
            "launch": LAUNCH,
            "refused": None,
            # a file for each study, as several drivers may use the cache
            "fits": str(store.cache / "micro_batch" / f"{self._footprint(spec)}-{self.study}.json"),
            "cohorts": str(store.cache / "cohorts" / f"{self._shared_footprint(spec)}-{self.study}.json"),
            "ray_dir": str(store.ray_dir),
            "store": store.settings,
        }

    def _footprint(self, spec: ClusterSpec) -> str:
        """A digest that is equal for runs that need the same memory: seeds, learning rates and weights may differ."""
        config = self.run.config
        shape = config.model_dump(mode="json", include={"student", "teacher", "data"})
        optim = config.optim.model_dump(include={"global_batch", "norm_batch", "precision"})
        paths = {name: term.options for name, term in config.active.items()}
        return digest([shape, optim, paths, _memory_given(spec)])

    def _shared_footprint(self, spec: ClusterSpec) -> str:
        """A digest that is equal for runs that may train together, also with another seed."""
        config = self.run.config
        shape = config.model_dump(mode="json", include={"teacher", "data"})
        return digest([shape, config.optim.global_batch, _memory_given(spec)])


def _memory_given(spec: ClusterSpec) -> dict[str, Any]:
    """The settings of a spec on which the memory of a run depends."""
    return spec.model_dump(include={"workers", "cpus_per_worker", "gpus_per_worker", "micro_batch", "compile"})


class Preparer:
    """Makes jobs of runs: checks each structure, reads data and weights, and computes the run ids."""

    def __init__(self, study: str, spec: ClusterSpec, store: Store, roots: Mapping[str, Path]) -> None:
        self.study = study
        self.spec = spec
        self.store = store
        self.roots = {**{name: Path(folder) for name, folder in spec.data_roots.items()}, **roots}
        self.teachers: dict[str, str] = {}
        """Run ids of the teachers that the study trains, by their config's key."""

    def place(
        self, config: TrainConfig, run_id: str = "", teacher: Path | None = None, given: ClusterSpec | None = None
    ) -> Place:
        """The folders, device and threads of a config's run; `given` is the spec with what the run is given."""
        given = given or self.spec
        device = "cuda" if given.gpus_per_worker else "cpu"
        return Place(
            out_dir=self.store.run_dir(run_id),
            data_root=self.roots.get(config.data.name),
            cache_dir=self.store.cache,
            device=device,
            threads=given.torch_threads,
            micro_batch=self.spec.micro_batch,
            teacher=teacher,
            compile=self.spec.compile,
            deterministic=self.spec.deterministic,
            checkpoint_every=self.spec.checkpoint_every,
        )

    def check_root(self, config: TrainConfig) -> None:
        """Raise UserError where a data set's folder is missing or has another layout. Reads no image."""
        from trainer.data import check_root

        check_root(config.data, self.roots.get(config.data.name), self.store.cache, config.eval.splits)

    def check(self, config: TrainConfig) -> dict[str, float]:
        """The cost of the deployed student. Raises UserError where the config cannot be built."""
        from trainer.training.known_structures import known_cost

        refuse_secrets(config.model_dump(mode="json", exclude={"plugins"}))
        if (known := known_cost(config, self.store.cache)) is not None:
            return known
        from trainer.training.build import check

        return check(config, self.store.cache)

    def check_trial(self, config: TrainConfig) -> dict[str, float]:
        """The same for a search's trial, whose batch may be proposed and must suit the workers of trials."""
        given = spec_of(self.spec, "trial", "")
        config.optim.group_sizes(given.least_workers, given.most_workers, self.spec.micro_batch)
        return self.check(config)

    @cached_property
    def reader(self) -> SourceReader:
        """Reads data and weights on the driver's machine."""
        from trainer.training.sources import SourceReader

        return SourceReader(self.place)

    def known_sources(self, configs: Sequence[TrainConfig]) -> Sources:
        """The sources of configs that `plan` can find quickly: splits that are packed or (with torch) generated, and
        weights on this machine."""
        from trainer.data import dataset_class, known_fingerprints
        from trainer.files.file_digest import file_digest

        data: dict[str, tuple[str, ...]] = {}
        weights: dict[str, str] = {}
        sections = {
            config.data.model_dump_json(include={"name", "options", "size"}) + "".join(config.eval.splits): config
            for config in configs
        }
        for config in sections.values():
            root = self.roots.get(config.data.name)
            if (found := known_fingerprints(config.data, root, self.store.cache, config.eval.splits)) is not None:
                data[data_key(config.data, config.eval.splits)] = found
            elif root is None and not dataset_class(config.data.name).needs_root and not missing("torch"):
                data |= self.reader.read([config]).data
        for name in {name for config in configs for name in weight_names(config)}:
            with contextlib.suppress(UserError):
                weights[name] = file_digest(Path(name))
        return Sources(NUMERICS_VERSION, data, weights)

    def could_not_check(self, state: StudyState) -> list[str]:
        """A line for each reason why it is unknown whether runs will be reused."""
        reasons: dict[str, int] = {}
        for run in state.unchecked:
            why = self._lacks(run.plan.config, state.sources)
            reasons[why] = reasons.get(why, 0) + 1
        return [
            f"not checked: {counted(count, 'run')} whose config has finished before: {why}; counted as to run"
            for why, count in reasons.items()
        ]

    def _lacks(self, config: TrainConfig, sources: Sources) -> str:
        """What `known_sources` could not find for a config."""
        from trainer.data import dataset_class

        name = config.data.name
        if data_key(config.data, config.eval.splits) not in sources.data:
            if self.roots.get(name) is None and dataset_class(name).needs_root:
                return f"the folder of {name} is not given (--data-root FOLDER)"
            return f"the data of {name} has not been packed on this machine yet, or has changed since"
        files = [file for file in weight_names(config) if file not in sources.weights]
        return f"no such weights here: {', '.join(files)}" if files else "its teacher could not be checked"

    def job(self, run: Run, run_id: str = "") -> Job:
        """The job of a run; its id is computed unless given. Raises UserError if its teacher is not in `teachers`."""
        identity = run_id or self.reader.run_id(run.config, run.key, run.teacher)
        teacher = None
        if run.needs is not None:
            if run.needs not in self.teachers:
                raise UserError(f"{run.arm} needs teacher {run.needs}, which the plan does not train")
            teacher = self.store.run_dir(self.teachers[run.needs]) / LAST
        place = self.place(run.config, identity, teacher, spec_of(self.spec, run.role, run.arm))
        if run.role == "trial":  # it is continued from the epoch after which its search stopped it
            place = replace(place, checkpoint_every=1)
        return Job(self.study, run, identity, place)
