"""The commands of a `ray up` file: the folders that they mount or copy, and whether head and workers join."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from cluster.launchers.launcher_file import Document, array, texts
from cluster.lint import Finding

_HEADS, _JOINS = r"\bray start\b.*--head\b", r"\bray start\b.*--address\b"
"""The commands that start Ray on the head and on a worker."""
OWN = r"localhost|127\.\d+\.\d+\.\d+|::1|0\.0\.0\.0"
"""Names by which a machine means itself."""
COPIES = r"""\b(?:s3|gs)://[^\s;&|]+[ \t]+(?:--\S+[ \t]+)*["']?(/[^\s;&|"']+)"""
"""What a command has that copies from a bucket, and the folder to which."""


def _commands_of(config: dict[str, Any], role: str) -> str:
    """The commands that the machines of a role run: those without a prefix are run on all."""
    other = {"head": "worker_", "worker": "head_"}[role]
    own = [text for keys, text in texts(config) if re.fullmatch(f"(?!{other}).*_commands", str(keys[0]))]
    return "\n".join(re.sub(r"(^|\s)#.*", "", text) for text in own)


def copied(config: dict[str, Any], role: str) -> set[str]:
    """The folders that the machines of a role copy from a bucket: `aws s3 sync s3://BUCKET/data /data` and the like."""
    return set(re.findall(COPIES, _commands_of(config, role)))


def mounts(config: dict[str, Any], role: str) -> set[str]:
    """The folders that the machines of a role mount."""
    commands = _commands_of(config, role)
    mounted = re.findall(r"\bmount -t (?:nfs|efs|lustre|ceph)\S*\s.*?:/\S*\s+(/\S+)", commands)
    demanded = re.findall(r"\bmountpoint -q (/[^\s;&|]++)(?!\s*\|\|)", commands)  # or `ray up` ends there
    return {*mounted, *demanded}


def line_of(document: Document, pattern: str, key: str) -> int | None:
    """The line of the first text that has a pattern, or else of a key."""
    found = (document.line(*keys) for keys, text in texts(document.data) if re.search(pattern, text))
    return next(found, document.line(key))


def command_findings(document: Document) -> Iterator[Finding]:
    """What the commands that start Ray lack."""
    config = document.data
    started = array(config.get("head_start_ray_commands"))
    head_line = line_of(document, _HEADS, "head_start_ray_commands")
    starts = [(keys, text) for keys, text in texts(config) if "ray start" in text]
    open_ones = [document.line(*keys) for keys, text in starts if "RAY_AUTH_MODE=token" not in text]
    asked = "RAY_AUTH_MODE=token" in str(config.get("docker", "")) or (starts and not open_ones)
    if not (asked and "auth_token" in str(config.get("file_mounts", ""))):
        message = "Ray starts without a token: whoever reaches one of its ports runs code on the machines"
        remedy = "write RAY_AUTH_MODE=token before `ray start` on head and workers, and mount ~/.ray/auth_token"
        yield Finding("no-token", message, remedy, next(iter(open_ones), head_line))
    if started and not any(
        re.search(r"--autoscaling-config[= ]\S*ray_bootstrap_config.yaml", str(one)) for one in started
    ):
        message = "the head starts without the --autoscaling-config that Ray wrote: no machine is added"
        remedy = "add --autoscaling-config=~/ray_bootstrap_config.yaml"
        yield Finding("no-autoscaler", message, remedy, head_line)
    if any("--head" in text and not re.search(r"--dashboard-host[= ]0\.0\.0\.0", text) for _, text in starts):
        message = "the dashboard listens on the head alone, and Ray Train ends the workers of stopped runs through it"
        remedy = "add --dashboard-host=0.0.0.0 to `ray start --head`"
        yield Finding("dashboard-hidden", message, remedy, head_line)
    yield from _other_port(document)
    yield from _never_joined(document)


def _never_joined(document: Document) -> Iterator[Finding]:
    """Commands after which the machines are there, and are no cluster."""
    for role, sign in (("head", "--head"), ("worker", "--address")):
        starts, key = _starts(document, role), f"{role}_start_ray_commands"
        line = line_of(document, r"\bray start\b", key) if role == "head" else document.line(key)
        if document.data.get(key) and not re.search(rf"\bray start\b.*{sign}\b", starts, re.DOTALL):
            message = f"{key} have no `ray start {sign}`: the {role} would not be part of the cluster"
            yield Finding("not-joined", message, f"add ray start {sign}", line)
    if own := re.search(rf"--address[= ]['\"]?({OWN}):", _starts(document, "worker")):
        message = f"each worker looks for the head at {own[1]}, which is itself"
        where = line_of(document, _JOINS, "worker_start_ray_commands")
        yield Finding("not-joined", message, "write --address=$RAY_HEAD_IP:6379", where)


def _other_port(document: Document) -> Iterator[Finding]:
    """Workers that look for the head at another port than its own."""
    head = re.findall(r"--port[= ](\d+)", _starts(document, "head")) or ["6379"]
    worker = re.findall(r"--address[= ]\S*:(\d+)", _starts(document, "worker"))
    if worker and not set(worker) & set(head):
        message = f"workers join the head at port {worker[0]}, and it listens at {head[0]}"
        yield Finding("port-differs", message, "write one port", line_of(document, _JOINS, "worker_start_ray_commands"))


def _starts(document: Document, role: str) -> str:
    return " ".join(text for _, text in texts(document.data.get(f"{role}_start_ray_commands")))
