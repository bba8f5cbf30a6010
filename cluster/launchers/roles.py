"""Roles of machines in a `ray up` file: which may use a bucket, and which the head may not give."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from cluster.launchers.launcher_file import Launcher, array, table, texts
from cluster.lint import Finding

_BUCKETS = {"aws": "s3://", "gcp": "gs://"}
_REMEDIES = {
    "s3://": "set node_config.IamInstanceProfile, for example to {Name: transkd} of cluster/aws-role.sh",
    "gs://": "set node_config.serviceAccounts, with the scope https://www.googleapis.com/auth/cloud-platform",
}
_KEYS = r"\b(AWS_ACCESS_KEY_ID|GOOGLE_APPLICATION_CREDENTIALS)\b"
_SCOPES = r"/auth/(cloud-platform|devstorage\.(read_write|full_control))(?![\w.])"
"""Scopes of Google Cloud within which an account may write to a bucket."""


def buckets_by_role(config: dict[str, Any]) -> str:
    """How the addresses begin that machines can reach by their role alone; empty where none, or where the commands
    bring credentials."""
    if any(re.search(_KEYS, text) for _, text in texts(config)):
        return ""
    return _BUCKETS.get(str(table(config.get("provider")).get("type")), "")


def has_role(provider: Any, node: dict[Any, Any], *, head: bool) -> bool:
    """Whether a machine may have a role by its `node_config`: Ray makes one for a head, and a template may name one."""
    if provider == "gcp":
        scopes = [str(table(account).get("scopes")) for account in array(node.get("serviceAccounts"))]
        return head or bool(node.get("sourceInstanceTemplate")) or any(re.search(_SCOPES, scope) for scope in scopes)
    return head or names_a_role(node)


def names_a_role(node: dict[Any, Any]) -> bool:
    """Whether a `node_config` of AWS names a role, or a template that may."""
    return bool(node.get("IamInstanceProfile") or node.get("LaunchTemplate"))


def without_role(launcher: Launcher, store: str) -> Iterator[Finding]:
    """Machines that have no role where the store lies in a bucket of their cloud."""
    if not launcher.buckets_by_role or not store.startswith(launcher.buckets_by_role):
        return
    for kind in launcher.types:
        if not kind.has_role:
            message = f"store is {store}, and the machines of {kind.name} have no role by which they may use it"
            yield Finding("no-role", message, _REMEDIES[launcher.buckets_by_role], kind.line)


def head_may_pass(head: str, nodes: dict[str, dict[Any, Any]], line: int | None) -> Iterator[Finding]:
    """On AWS, workers with a role that the head may not give: it has one that Ray makes, without iam:PassRole."""
    others = [name for name, node in nodes.items() if name != head and node.get("IamInstanceProfile")]
    if others and head in nodes and not names_a_role(nodes[head]):
        message = f"{head} names no role, and with the one that Ray makes it may not start {', '.join(others)}"
        remedy = f"set {head}.node_config.IamInstanceProfile to one whose role has iam:PassRole (cluster/aws-role.sh)"
        yield Finding("role-not-passed", message, remedy, line)
