"""ClusterSpec: what a cluster spec gives to a run, and to those of its overrides. It never changes a run's numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from cluster.machine_types import MachineKind, started_for
from cluster.mistakes import lines
from cluster.overrides import ROLES, Override
from cluster.retries import Retries
from cluster.workers import LARGEST, Workers, in_words
from trainer.config import Count, FilePath, Integer, Name, Number, Strict, masked

DAYS_S = 7 * 24 * 3600.0
"""The longest wait for a machine, a week."""

ADDRESSES = ("s3://", "gs://", "abfs://", "abfss://", "file:///")
"""How the address of a store that is no folder begins."""

_HOST = r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]"
"""A name, an IPv4 address, or an IPv6 address in brackets."""


class SpecError(ValueError):
    """A wrong cluster spec, or one that these machines cannot run: one line with the remedy. Exit code 2."""


class ClusterSpec(Strict):
    """The contents of a cluster spec, the YAML file of `transkd run --cluster FILE`."""

    address: Name = "local"
    """`local` starts Ray on this machine, `auto` joins the cluster running here, `HOST:PORT` joins that cluster."""
    workers: Workers = 1
    """Data-parallel processes of one run, or a range: with [1, 4] a run starts with as many as have room, goes on with
    fewer after a loss, and with more when there is room. The global batch stays the same."""
    cpus_per_worker: Number = Field(1, ge=0.01, le=LARGEST)
    gpus_per_worker: Number = Field(0, ge=0, le=LARGEST)
    """Below 1, several runs share a GPU (their memory must fit); above 1, a whole number."""
    threads: Integer | None = Field(None, ge=1, le=LARGEST)
    """torch threads of a worker; default: its CPUs, rounded down."""
    micro_batch: Count | None = None
    """Samples in one forward pass; set it when a worker's share of the global batch exceeds the memory."""
    compile: bool = False
    """Compile teacher, student and paths in every worker; numbers agree to rounding with those of other workers."""
    deterministic: bool = False
    """On GPUs, repeat a run bit for bit, with slower algorithms."""
    checkpoint_every: Integer = Field(1, ge=1, le=LARGEST)
    """Epochs from one checkpoint to the next: a run that is stopped repeats at most so many. Trials of a search, which
    may be stopped after any epoch and continued, write one after each."""
    concurrency: Literal["auto"] | Annotated[Integer, Field(le=LARGEST)] = "auto"
    """Runs at once, refused where fewer fit; `auto`: as many as fit, and at most `max_runs`."""
    max_runs: Integer | None = Field(None, ge=1, le=LARGEST)
    """The most runs of a study at once, however many fit: leaves the rest of a shared cluster to others."""
    priority: Number = Field(1, ge=0.01, le=LARGEST)
    """Weight of a study in the shares of a cluster (`address` other than `local`): 3 gets three times the resources
    that a study of 1 has while both have runs to start."""
    cohort: Literal["auto", "off"] | Annotated[Integer, Field(le=LARGEST)] = "auto"
    """The most runs that train in one process with one pass of their teacher; `off`, or 1: each run has a process of
    its own. `auto`: as many as the memory holds where that ends the study sooner."""
    max_cpus: Number | None = Field(None, gt=0, le=LARGEST)
    """CPUs up to which an autoscaler may grow; default: those there now."""
    max_gpus: Number | None = Field(None, ge=0, le=LARGEST)
    """GPUs up to which an autoscaler may grow; default: those there now."""
    cpus_per_machine: Number | None = Field(None, ge=0.01, le=LARGEST)
    """CPUs of each machine that the autoscaler adds, as its launcher file states them."""
    gpus_per_machine: Number = Field(0, ge=0, le=LARGEST)
    """GPUs of each machine that the autoscaler adds."""
    machine_types: dict[Name, MachineKind] = Field(default_factory=dict)
    """The machines that the autoscaler adds where they are of several kinds, by the names of the launcher file; instead
    of `max_cpus`, `max_gpus`, `cpus_per_machine` and `gpus_per_machine`."""
    overrides: dict[Name, Override] = Field(default_factory=dict)
    """Role (`teacher`, `arm`, `trial`) or name of an arm -> what its runs are given instead. The name goes first."""
    store: FilePath | None = None
    """Folder of ledger, checkpoints and tracking, the same path on every machine; or an address, s3://BUCKET/PREFIX."""
    group: Name | None = None
    """Group of the users who share the store, a folder; default: the user's umask decides who may read it."""
    data_roots: dict[Name, FilePath] = Field(default_factory=dict)
    """Data set name -> its folder; the same path on every machine."""
    tracking: tuple[Literal["mlflow", "tensorboard", "wandb"], ...] = ("mlflow",)
    """Where runs can be looked at: MLflow, and beside it event files of TensorBoard or Weights & Biases."""
    price_per_gpu_hour: Number | None = Field(None, gt=0, le=LARGEST)
    """Price of one GPU with its machine per hour, in any currency; `transkd plan` computes the cost of a study."""
    retries: Retries = Retries()
    """How often one start of a study retries a failed run, by cause."""
    start_timeout_s: Number = Field(600, gt=0, le=DAYS_S)
    """Has no effect: a run waits for its workers as long as it takes. It is accepted because earlier specs have it."""

    @field_validator("concurrency")
    @classmethod
    def _at_least_one_run(cls, value: Literal["auto"] | int) -> Literal["auto"] | int:
        if value != "auto" and value < 1:
            raise ValueError(f"must be `auto` or at least 1 but got {value}; remove the line to run as many as fit")
        return value

    @field_validator("cohort", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: object) -> object:
        return "off" if value is False else value  # as YAML 1.1 reads it without quotes

    @field_validator("cohort")
    @classmethod
    def _cohort_has_a_run(cls, value: Literal["auto", "off"] | int) -> Literal["auto", "off"] | int:
        if isinstance(value, int) and value < 1:
            raise ValueError(
                f"must be `auto`, `off` or at least 1 but got {value}; remove the line to let it be chosen"
            )
        return value

    @field_validator("tracking")
    @classmethod
    def _mlflow_is_one_of_them(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "mlflow" not in value or len(set(value)) != len(value):
            raise ValueError(
                f"must name mlflow, and at most once each tensorboard and wandb, but got [{', '.join(value)}]; write "
                "tracking: [mlflow, tensorboard]"
            )
        return value

    @property
    def store_folder(self) -> Path | None:
        """The folder of the store on every machine; None where none is named, or a bucket is."""
        folder = (self.store or "").removeprefix("file://")
        return Path(folder) if folder.startswith("/") else None

    @field_validator("store")
    @classmethod
    def _store_is_a_folder_or_address(cls, value: str | None) -> str | None:
        if value is None or value.startswith(ADDRESSES):
            return value
        if "://" in value:
            known = ", ".join(ADDRESSES)
            raise ValueError(
                f"must be a folder that every machine mounts, or begin with {known} but got {masked(value)}"
            )
        return _absolute(value)

    @field_validator("data_roots")
    @classmethod
    def _data_roots_are_folders(cls, value: dict[str, str]) -> dict[str, str]:
        return {name: _absolute(folder) for name, folder in value.items()}

    @model_validator(mode="after")
    def _address_can_be_joined(self) -> ClusterSpec:
        host, _, port = self.address.rpartition(":")
        joins = re.fullmatch(_HOST, host) and re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 2**16
        if self.address not in ("local", "auto") and not joins:
            raise ValueError(
                f"address must be local, auto or HOST:PORT but got {masked(self.address)}; a port is 1 to 65535"
            )
        return self

    @model_validator(mode="after")
    def _gpus_can_be_dealt(self) -> ClusterSpec:
        if 0 < self.gpus_per_worker < 0.01:
            raise ValueError(f"gpus_per_worker must be 0 or at least 0.01 but got {self.gpus_per_worker:g}")
        if self.gpus_per_worker > 1 and self.gpus_per_worker % 1:
            raise ValueError(f"gpus_per_worker above 1 must be a whole number but got {self.gpus_per_worker:g}")
        if 0 < self.gpus_per_worker < 1 and self.most_workers > 1:
            raise ValueError(
                f"gpus_per_worker must be 0 or whole where workers is {in_words(self.workers)} but got "
                f"{self.gpus_per_worker:g}: NCCL refuses two workers of a run on one GPU; set gpus_per_worker: 1"
            )
        return self

    @model_validator(mode="after")
    def _concurrency_is_within_max_runs(self) -> ClusterSpec:
        if self.concurrency != "auto" and self.max_runs is not None and self.concurrency > self.max_runs:
            raise ValueError(
                f"concurrency must be at most max_runs, which is {self.max_runs}, but got {self.concurrency}; "
                "remove one of the two"
            )
        return self

    @model_validator(mode="after")
    def _a_price_has_something_to_price(self) -> ClusterSpec:
        if self.price_per_gpu_hour is not None and not any(spec.gpus_per_worker for spec in variants(self).values()):
            raise ValueError(
                f"price_per_gpu_hour is {self.price_per_gpu_hour:g} but gpus_per_worker is 0; set gpus_per_worker, or "
                "remove the price"
            )
        return self

    @model_validator(mode="after")
    def _a_worker_fits_a_machine(self) -> ClusterSpec:
        if self.cpus_per_machine is None:
            if self.gpus_per_machine:
                raise ValueError(
                    "gpus_per_machine needs cpus_per_machine beside it; add it, or remove gpus_per_machine"
                )
            return self
        if not self.scales:
            raise ValueError("cpus_per_machine is for an autoscaler; set max_cpus or max_gpus, or remove it")
        for kind, need, there in (
            ("cpus", self.cpus_per_worker, self.cpus_per_machine),
            ("gpus", self.gpus_per_worker, self.gpus_per_machine),
        ):
            if need > there:
                raise ValueError(
                    f"{kind}_per_worker is {need:g} but {kind}_per_machine is {there:g}: a worker cannot span two "
                    f"machines; lower {kind}_per_worker, or choose larger machines"
                )
        return self

    @model_validator(mode="after")
    def _overrides_are_specs(self) -> ClusterSpec:
        for name, override in self.overrides.items():
            given = _overridden(self, override).model_copy(update={"machine_types": {}})
            try:
                ClusterSpec.model_validate(given.model_dump())
            except ValidationError as error:
                wrong = "; ".join(lines(error, Override.model_fields)).replace("the whole file: ", "")
                raise ValueError(f"overrides.{name}: {wrong}") from None
        return self

    @model_validator(mode="after")
    def _machine_types_say_all(self) -> ClusterSpec:
        if not self.machine_types:
            return self
        for key in ("max_cpus", "max_gpus", "cpus_per_machine", "price_per_gpu_hour"):
            if getattr(self, key) is not None:
                price = key.startswith("price")
                instead = "price_per_hour" if price else "cpus, gpus and most"
                raise ValueError(f"{key} is for machines of one kind; state {instead} of each of machine_types instead")
        for name, spec in variants(self).items():
            need = {"CPU": spec.cpus_per_worker, "GPU": spec.gpus_per_worker}
            if not started_for(self.machine_types, *need.values()):
                whose = f"a worker of {name}" if name else "a worker"
                sizes = {kind: amounts({"CPU": of.cpus, "GPU": of.gpus}) for kind, of in self.machine_types.items()}
                listed = ", ".join(f"{kind} ({size})" for kind, size in sizes.items())
                raise ValueError(
                    f"{whose} needs {amounts(need)}, and none of machine_types holds it: {listed}; lower what "
                    "it needs, or add a type"
                )
        return self

    @property
    def least_workers(self) -> int:
        """The number of workers without which a run does not train: feasibility and cost are counted with it."""
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def most_workers(self) -> int:
        """The largest number of workers of a run."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]

    @property
    def most_gpus(self) -> float:
        """The most GPUs that a worker of any run is given; 0 where all runs train on CPUs."""
        return max(spec.gpus_per_worker for spec in variants(self).values())

    @property
    def torch_threads(self) -> int:
        """torch threads of each worker; explicit, because Ray would choose otherwise."""
        return self.threads or max(1, int(self.cpus_per_worker))

    @property
    def other_trackers(self) -> tuple[str, ...]:
        """The names in `tracking` but MLflow's."""
        return tuple(name for name in self.tracking if name != "mlflow")

    @property
    def scales(self) -> bool:
        """Whether an autoscaler may add machines."""
        return self.max_cpus is not None or self.max_gpus is not None or bool(self.machine_types)


def spec_of(spec: ClusterSpec, role: str, arm: str) -> ClusterSpec:
    """The spec of the runs of a role and an arm, without overrides: what they state is in it."""
    if not spec.overrides:
        return spec
    given = spec.model_copy(update={"overrides": {}})
    for name in (role, arm):
        if name in spec.overrides and (name == role or name not in ROLES):  # an arm may be called `teacher`
            given = _overridden(given, spec.overrides[name])
    return given


def variants(spec: ClusterSpec) -> dict[str, ClusterSpec]:
    """What is given to all runs, under "", and to those of each override."""
    alone = spec.model_copy(update={"overrides": {}})
    return {"": alone, **{name: _overridden(alone, each) for name, each in spec.overrides.items()}}


def _overridden(spec: ClusterSpec, override: Override) -> ClusterSpec:
    """The spec with what an override states. Its runs are counted by themselves, whatever `concurrency` says of all."""
    given: dict[str, object] = {**override.given, "overrides": {}, "concurrency": "auto"}
    if not given.get("gpus_per_worker", spec.gpus_per_worker):
        given["price_per_gpu_hour"] = None
    return spec.model_copy(update=given)


def amounts(resources: Mapping[str, float]) -> str:
    """`4 CPUs and 1 GPU`."""
    counts = [f"{amount:g} {name}{'' if amount == 1 else 's'}" for name, amount in resources.items() if amount]
    return " and ".join(counts) or "no CPUs"


def _absolute(folder: str) -> str:
    if "://" in folder:
        raise ValueError(
            f"must be a folder that every machine mounts but got {masked(folder)}; mount it (EFS, NFS, a volume)"
        )
    path = Path(folder)
    if not path.is_absolute():
        raise ValueError(
            f"must be an absolute path but got {folder}: a Ray job runs in another folder; write it in full"
        )
    return str(path)
