"""What KubeRay's RayJob adds to a cluster: its command, when it ends, and who starts it again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

from cluster.launchers.launcher_file import IDLE_MOST_S, Document, array, table
from cluster.lint import Finding

API = "ray.io/v1"
MODES = ("K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode")
NAME = {"RayJob": 47, "RayCluster": 53}
"""The longest names that KubeRay takes."""
QUEUE = "kueue.x-k8s.io/queue-name"
ELASTIC = "kueue.x-k8s.io/elastic-job"
"""The label that gives a job to Kueue, and the annotation of one that Kueue lets grow and shrink."""


def command(document: Document) -> tuple[str, str]:
    """STUDY and SPEC of the entrypoint `transkd run STUDY --cluster SPEC`; empty where they are not there."""
    try:
        words = shlex.split(str(table(document.data.get("spec")).get("entrypoint", "")).replace("=", " "))
    except ValueError:  # a quote that is not closed
        return "", ""
    if words[:2] != ["transkd", "run"] or len(words) < 3:
        return "", ""
    spec = words[words.index("--cluster") + 1 :][:1] if "--cluster" in words else []
    return words[2], "".join(spec)


def metadata_findings(document: Document) -> Iterator[Finding]:
    """What KubeRay and Kueue refuse because of the name or the labels. Source: validation.go of ray-project/kuberay and
    raycluster_webhook.go of kubernetes-sigs/kueue."""
    data, kind = document.data, str(document.data.get("kind"))
    metadata, job = table(data.get("metadata")), table(data.get("spec"))
    cluster = table(job.get("rayClusterSpec")) if kind == "RayJob" else job
    name = metadata.get("name", "")
    if name and not (re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", str(name)) and len(str(name)) <= NAME[kind]):
        message = f"a {kind} cannot be named {name}"
        remedy = f"begin with a letter, and write at most {NAME[kind]} small letters, digits and hyphens"
        yield Finding("refused-by-kuberay", message, remedy, document.line("metadata", "name"))
    if QUEUE not in table(metadata.get("labels")):
        return
    groups, line = array(cluster.get("workerGroupSpecs")), document.line("metadata", "labels", QUEUE)
    elastic = str(table(metadata.get("annotations")).get(ELASTIC)).lower() == "true"
    if cluster.get("enableInTreeAutoscaling") and not elastic:
        message = f"the label {QUEUE} gives it to Kueue, which refuses what grows by itself"
        remedy = f'set enableInTreeAutoscaling: false and replicas to maxReplicas, or the annotation {ELASTIC}: "true"'
        yield Finding("refused-by-kueue", message, remedy, line)
    if len(groups) > 7 or any(table(group).get("groupName") == "head" for group in groups):
        message = f"Kueue takes at most 7 worker groups, none of them named head, and there are {len(groups)}"
        yield Finding("refused-by-kueue", message, "join or rename groups", line)


def job_findings(document: Document) -> Iterator[Finding]:
    """What would let a job hang, end early, or cost money after its end."""
    data, job = document.data, table(document.data.get("spec"))
    if data.get("apiVersion") != API:
        message = f"apiVersion is {data.get('apiVersion')}, and the fields are those of {API}"
        yield Finding("wrong-value", message, f"set apiVersion: {API}", document.line("apiVersion"))
    yield from _ends(document, job)
    yield from _begins(document, job)
    study, spec = command(document)
    if study and spec in ("", "local"):
        message = "entrypoint names no cluster spec: runs would train on the head alone"
        yield Finding("entrypoint-local", message, "add --cluster SPEC", document.line("spec", "entrypoint"))
    for key in ("entrypointNumCpus", "entrypointNumGpus", "entrypointResources"):
        if job.get(key):
            message = f"{key} lets the driver run on a worker, which may be taken back and then ends the study"
            yield Finding("driver-on-worker", message, f"remove {key}", document.line("spec", key))


def _ends(document: Document, job: dict[Any, Any]) -> Iterator[Finding]:
    kept, stays = job.get("ttlSecondsAfterFinished"), job.get("shutdownAfterJobFinishes") is not True
    if stays:
        message = "the machines stay when the study has ended"
        remedy = "set shutdownAfterJobFinishes: true"
        yield Finding("stays-up", message, remedy, document.line("spec", "shutdownAfterJobFinishes"))
    elif isinstance(kept, int) and kept > IDLE_MOST_S:
        message = f"the machines stay {kept / 3600:.3g} h after the study's end"
        remedy = f"set ttlSecondsAfterFinished to {IDLE_MOST_S} or less"
        yield Finding("stays-up", message, remedy, document.line("spec", "ttlSecondsAfterFinished"))
    for key in ("backoffLimit", "ttlSecondsAfterFinished"):
        if isinstance(job.get(key), int) and job[key] < 0:
            message = f"{key} is {job[key]}, and must be 0 or more"
            yield Finding("refused-by-kuberay", message, "write a larger one", document.line("spec", key))
    again = job.get("backoffLimit", 0)
    if again == 0:
        message = "backoffLimit is 0: where the head or the driver is lost, nobody starts the study again"
        remedy = "set backoffLimit: 3; the store on the volume remembers what is done"
        yield Finding("not-restarted", message, remedy, document.line("spec", "backoffLimit"))
    if (limit := job.get("activeDeadlineSeconds")) is not None:
        message = f"activeDeadlineSeconds ends the study after {limit} s, finished or not, and it is not started again"
        line = document.line("spec", "activeDeadlineSeconds")
        yield Finding("ended-by-deadline", message, "remove it, or use transkd run --max-gpu-hours", line)


def _begins(document: Document, job: dict[Any, Any]) -> Iterator[Finding]:
    mode = job.get("submissionMode", "K8sJobMode")
    line = document.line("spec", "submissionMode")
    if mode == "InteractiveMode":
        message = "submissionMode InteractiveMode starts the machines and waits for a job that a person submits"
        yield Finding("waits-for-a-person", message, "remove submissionMode", line)
    elif mode not in MODES:
        message = f"submissionMode must be one of {', '.join(MODES)} but got {mode}"
        yield Finding("wrong-value", message, "remove it, or write one of them", line)
    entrypoint = job.get("entrypoint") or ""
    if not entrypoint and mode != "InteractiveMode":
        message = "the job has no entrypoint: its machines start, and no study runs"
        remedy = "set entrypoint: transkd run STUDY --cluster SPEC"
        yield Finding("missing-key", message, remedy, document.line("spec", "entrypoint"))
    elif re.match(r"\s*transkd\b(?!\s+run\s+\S)", str(entrypoint)):
        message = f"entrypoint {entrypoint} runs no study"
        remedy = "write transkd run STUDY --cluster SPEC"
        yield Finding("wrong-value", message, remedy, document.line("spec", "entrypoint"))
    queued = QUEUE in table(table(document.data.get("metadata")).get("labels"))
    if job.get("suspend") is True and not queued:
        message = "suspend is true: nothing starts until a person sets it to false"
        remedy = f"remove it; Kueue sets it itself where the label {QUEUE} is there"
        yield Finding("waits-for-a-person", message, remedy, document.line("spec", "suspend"))
    if job.get("clusterSelector"):
        message = "clusterSelector runs the job on a cluster that is there, and rayClusterSpec has no effect"
        yield Finding("spec-ignored", message, "remove one of the two", document.line("spec", "clusterSelector"))
