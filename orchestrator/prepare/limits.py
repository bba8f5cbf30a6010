"""LimitsCheck: compare the cost of deployed students, latency included, with a study's limits."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping, Sequence

from ablations.study.limits import Limits
from ablations.study.plan import Run
from ablations.study.schema import Study
from cluster.spec import ClusterSpec
from orchestrator.prepare.trainer_program import last_error_line, run_program
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger
from trainer.config import TrainConfig, UserError, digest, parse, read_yaml
from trainer.files.atomic import whole_json
from trainer.files.run_folder import write_text


def deployed(study: Study, runs: Sequence[Run]) -> dict[str, TrainConfig]:
    """Arm -> config that limits are checked for before anything runs; of a search its `base`, unless the student itself
    is searched."""
    found = {run.arm: run.config for run in runs if run.role == "arm"}
    if study.search is not None and not any(path.startswith("student") for path in study.search.space):
        found["base"] = parse(study.base)
    return found


class LimitsCheck:
    """Refuses arms and proposals that exceed a study's limits."""

    def __init__(self, limits: Limits, spec: ClusterSpec, store: Store, ledger: Ledger) -> None:
        self.limits = limits
        self.spec = spec
        self.store = store
        self.ledger = ledger
        self.device = "cuda" if spec.gpus_per_worker else "cpu"

    def refuse(self, deployed: Mapping[str, TrainConfig], costs: Mapping[str, Mapping[str, float]]) -> None:
        """Raise UserError naming every arm of `deployed` that exceeds a limit; `costs` are arm -> cost."""
        found = {arm: dict(cost) for arm, cost in costs.items() if arm in deployed}
        if self.limits.latency_ms is not None:
            for arm, config in deployed.items():
                found[arm]["latency_ms"] = self.latency_ms(config)
        self.limits.refuse(found)

    def latency_ms(self, config: TrainConfig) -> float:
        """Latency of the deployed student. Where runs train on this machine it is measured once; otherwise it is that
        of the last finished run on such a device. Raises UserError where there is none."""
        network = _network(config)
        # cached: a second measurement might differ, and a proposal must not become infeasible later
        place = [self.device, self.spec.torch_threads, socket.gethostname() if self.spec.address == "local" else ""]
        file = self.store.cache / "latency" / f"{digest([*network, *place])}.json"
        if (known := whole_json(file)) is not None and "latency_ms" in known:
            return known["latency_ms"]
        found = self._measured(config) if self.spec.address == "local" else self._recorded(network)
        if found is None:
            raise UserError(
                f"limits.latency_ms: there is no latency of {config.student.name} at {network[2]} on the cluster's "
                f"{self.device}; finish one run of it there without this limit, or limit gmacs instead"
            )
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps({"latency_ms": found, "network": network, "place": place}))
        return found

    def _measured(self, config: TrainConfig) -> float:
        asked = {
            "config": config.whole(),
            "device": self.device,
            "threads": self.spec.torch_threads,
        }
        done = run_program("trainer.measure.latency", json.dumps(asked))
        if done.returncode:
            why = last_error_line(done)
            raise UserError(f"limits.latency_ms: {config.student.name} could not be measured here: {why}")
        return json.loads(done.stdout)["latency_ms"]

    def _recorded(self, network: list[str]) -> float | None:
        for run in reversed(self.ledger.outcomes().values()):
            file = self.store.run_dir(run.run_id) / "config.yaml"
            on = str(run.environment.get("device", "")).partition(":")[0]
            measured = "latency_ms" in run.complexity and on == self.device and file.exists()
            if measured and _network(TrainConfig.model_validate(read_yaml(file))) == network:
                return run.complexity["latency_ms"]
        return None


def _network(config: TrainConfig) -> list[str]:
    """What decides the deployed student's latency: the network, the data set (its classes) and the input's size."""
    from trainer.data import dataset_class, facts_of

    height, width = config.data.size
    facts = facts_of(config.data)
    classes = len(facts.classes)
    by_options = [] if classes == len(dataset_class(config.data.name).classes) else [f"{classes} classes"]
    return [config.student.name, config.data.name, f"{facts.channels}x{height}x{width}", *by_options]
