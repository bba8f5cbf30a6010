"""Probe: time a few steps of structures that no earlier run had; results are kept in the store's cache."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.spec import ClusterSpec
from orchestrator.prepare.pace import Pace, this_hardware
from orchestrator.prepare.trainer_program import ROOT, last_error_line, run_program
from orchestrator.store.folder import Store
from trainer.config import TrainConfig, UserError, digest
from trainer.files.atomic import whole_json
from trainer.files.run_folder import write_text


def probe(
    configs: Mapping[str, TrainConfig],
    spec: ClusterSpec,
    store: Store,
    roots: Mapping[str, Path],
    limit_s: float | None,
) -> dict[str, Pace]:
    """Structure -> pace, of one config per structure. Times are None where this machine lacks the device or `limit_s`
    seconds were too short. Raises UserError where a config cannot be built.
    """
    place = {
        "out_dir": str(store.runs_dir),
        "cache_dir": str(store.cache),
        "device": "cuda" if spec.gpus_per_worker else "cpu",
        "threads": spec.torch_threads,
        "micro_batch": spec.micro_batch,
        "compile": spec.compile,
        "deterministic": spec.deterministic,
        "checkpoint_every": spec.checkpoint_every,
    }
    settings = {"workers": spec.least_workers, "place": place}
    on = [settings, this_hardware(spec), _code()]
    files = {
        name: store.cache / "probes" / f"{digest([name, _root(config, roots), on])}.json"
        for name, config in configs.items()
    }
    answers = {name: known for name, file in files.items() if (known := whole_json(file)) is not None}
    todo = [name for name in configs if name not in answers]
    if todo:
        requests = [{"id": name, "config": configs[name].whole(), "root": _root(configs[name], roots)} for name in todo]
        answers |= _ask([{**settings, "limit_s": limit_s}, *requests])
        for name in todo:
            if "epoch_s" in answers.get(name, {}):
                files[name].parent.mkdir(parents=True, exist_ok=True)
                write_text(files[name], json.dumps(answers[name]))
    return {
        name: Pace(answer.get("epoch_s"), answer.get("once_s", 0.0), answer["checkpoints"], answer["packed"])
        for name, answer in answers.items()
    }


def _ask(requests: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The program's answers by id. Where its alarm or a lack of memory ended it, the answers so far are used."""
    done = run_program("trainer.probe", "".join(json.dumps(request) + "\n" for request in requests))
    answers: dict[str, dict[str, Any]] = {}
    for line in done.stdout.splitlines():
        facts = json.loads(line)
        answers.setdefault(facts.pop("id"), {}).update(facts)
    if done.returncode > 0:
        raise UserError(f"a training step could not be timed: {last_error_line(done)}")
    return answers


def _root(config: TrainConfig, roots: Mapping[str, Path]) -> str | None:
    return str(roots[config.data.name]) if config.data.name in roots else None


def _code() -> int:
    """When the trainer's code last changed, in ns: older measurements are not used."""
    return max(file.stat().st_mtime_ns for file in (ROOT / "trainer").rglob("*.py"))
