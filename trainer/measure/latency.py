"""Measure the single-image latency of a config's student in a process of its own, which frees the GPU when it ends.

`python -m trainer.measure.latency` reads settings as JSON and answers in JSON, `{"latency_ms": ...}`.
"""

from __future__ import annotations

import json
import sys

import torch

from trainer.config import TrainConfig, parse
from trainer.data import facts_of
from trainer.measure.device import pick_device
from trainer.measure.footprint import measure
from trainer.models import build_model
from trainer.plugins.load import add


def latency_ms(config: TrainConfig, device: str, threads: int) -> float:
    """Milliseconds, measured as at the end of a run; the weights are random. Raises UserError."""
    torch.set_num_threads(threads)
    facts = facts_of(config.data)
    student = build_model(config.student, len(facts.classes), facts.channels)
    return measure(student, config.data.size, pick_device(device))["latency_ms"]


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    config = parse(asked["config"])
    add(config.used_plugins)
    found = latency_ms(config, asked["device"], asked["threads"])
    print(json.dumps({"latency_ms": found}))
