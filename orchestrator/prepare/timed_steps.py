"""Probe: the trainer's short measurement of structures that no earlier run had, remembered in the store's cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.spec import ClusterSpec
from orchestrator.prepare.pace import Pace, this_hardware
from orchestrator.store.folder import Store
from trainer.config import TrainConfig, UserError, digest
from trainer.files.run_folder import write_text

ROOT = Path(__file__).parents[2]
PROGRAM = "trainer.probe"


def probe(
    configs: Mapping[str, TrainConfig],
    spec: ClusterSpec,
    store: Store,
    roots: Mapping[str, Path],
    limit_s: float | None,
) -> dict[str, Pace]:
    """By structure, what its runs keep on disk and, as far as this machine has their device, take. `configs` are one a
    structure; those that `limit_s` seconds do not suffice for have no time. Raises UserError where one cannot be built.
    """
    place = {
        "out_dir": str(store.runs_dir),
        "cache_dir": str(store.cache),
        "device": "cuda" if spec.gpus_per_worker else "cpu",
        "threads": spec.torch_threads,
        "micro_batch": spec.micro_batch,
    }
    settings = {"workers": spec.workers, "place": place}
    on = [settings, this_hardware(spec), _code()]
    files = {
        name: store.cache / "probes" / f"{digest([name, _root(config, roots), on])}.json"
        for name, config in configs.items()
    }
    answers = {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
    todo = [name for name in configs if name not in answers]
    if todo:
        requests = [
            {"id": name, "config": configs[name].model_dump(mode="json"), "root": _root(configs[name], roots)}
            for name in todo
        ]
        answers |= _ask([{**settings, "limit_s": limit_s}, *requests])
        for name in todo:
            if "epoch_s" in answers.get(name, {}):
                _keep(files[name], answers[name])
    return {
        name: Pace(answer.get("epoch_s"), answer.get("once_s", 0.0), answer["checkpoints"], answer["packed"])
        for name, answer in answers.items()
    }


def _ask(requests: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The program's answers by id. It may be ended by its alarm, or for its memory: what it said before counts."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", PROGRAM],
        input="".join(json.dumps(request) + "\n" for request in requests),
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    answers: dict[str, dict[str, Any]] = {}
    for line in done.stdout.splitlines():
        facts = json.loads(line)
        answers.setdefault(facts.pop("id"), {}).update(facts)
    if done.returncode > 0:
        raise UserError(f"a step cannot be tried: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
    return answers


def _root(config: TrainConfig, roots: Mapping[str, Path]) -> str | None:
    return str(roots[config.data.name]) if config.data.name in roots else None


def _keep(file: Path, answer: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(answer))


def _code() -> int:
    """When the trainer was last changed, in ns: a pace that was measured before is another program's."""
    return max(file.stat().st_mtime_ns for file in (ROOT / "trainer").rglob("*.py"))
