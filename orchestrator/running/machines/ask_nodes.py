"""Ask every machine of a cluster something, by a task that runs on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trainer.config import message_of

ANSWER_S = 120.0
"""Timeout for a machine's answer, in seconds: its first task has to start a Python process."""


def ask_each(
    nodes: Sequence[Mapping[str, Any]], question: Callable[..., Any], arguments: Callable[[str], tuple[Any, ...]]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Call `question(*arguments(id))` on every node. Returns the answers by Ray's id of the node, and why others gave
    none."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(question)
    asked = {
        (name := node["NodeID"]): task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(name, soft=False)
        ).remote(*arguments(name))
        for node in nodes
    }
    done, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=ANSWER_S)
    answers, silent = {}, {}
    for name, answer in asked.items():
        if answer not in done:
            silent[name] = f"no answer within {ANSWER_S:g} s"
            continue
        try:
            answers[name] = ray.get(answer)
        except ray.exceptions.RayError as error:
            silent[name] = message_of(error)
    return answers, silent
