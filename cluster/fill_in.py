"""A launcher file and its cluster spec, made from the packaged ones and a few answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from trainer.config import UserError, shown, unknown

_HOST = r"[A-Za-z0-9][A-Za-z0-9.:-]*"
_CPUS_PER_MACHINE = 6
"""Of each GPU machine in the packaged files."""


class Answer(NamedTuple):
    """What a user may state: the pattern of a value, an example, and what of the packaged files it replaces."""

    rule: str
    example: str
    changes: Mapping[str, Callable[[str], str]]


def _in_place_of(old: str, rule: str, example: str) -> Answer:
    return Answer(rule, example, {old: str})


_MACHINES = Answer(
    r"[1-9][0-9]{0,3}",
    "8",
    {
        r"(?<=max_workers: )8": str,
        r"(?<=maxReplicas: )8": str,
        r"(?<=max_gpus: )8": str,
        r"(?<=max_cpus: )48": lambda value: str(int(value) * _CPUS_PER_MACHINE),
        r"(?<=0 to )8": str,
    },
)
_IMAGE = _in_place_of(r"registry\.example\.com/transkd:0\.1\.0", r"[\w.:/@-]+", "ghcr.io/me/transkd:0.1.0")
_BUCKET = _in_place_of("fill-in-bucket", "[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", "my-bucket")
"""Of names that S3 and Google Cloud Storage allow, those that have no dot, as a certificate covers one label."""
_STORAGE_CLASS = _in_place_of("fill-in-class", "[a-z0-9.-]+", "efs")
_NODE = {
    "gpus": _in_place_of("(?<=--gpus-per-node=)4", "[1-9][0-9]?", "8"),
    "cpus": _in_place_of("(?<=--cpus-per-task=)26", "[1-9][0-9]{0,2}", "64"),
    "time": _in_place_of("(?<=--time=)24:00:00", r"(\d+-)?\d+(:\d\d){0,2}", "12:00:00"),
}
"""Of a script for Slurm."""
ANSWERS: dict[str, dict[str, Answer]] = {
    "aws": {
        "image": _in_place_of("ami-0{17}", "ami-[0-9a-f]{8,17}", "ami-0a1b2c3d4e5f60718"),
        "bucket": _BUCKET,
        "region": _in_place_of("us-west-2", r"[a-z]{2}(-[a-z]+)+-\d", "eu-central-1"),
        "machines": _MACHINES,
    },
    "gcp": {
        "project": _in_place_of("fill-in-project", "[a-z][a-z0-9-]{4,28}[a-z0-9]", "my-project"),
        "image": _in_place_of("fill-in-family", "[a-z][a-z0-9-]*", "common-cu128-ubuntu-2204-nvidia-570"),
        "bucket": _BUCKET,
        "zone": Answer(
            "[a-z]+-[a-z]+[0-9]+-[a-z]",
            "europe-west4-b",
            {"us-central1-a": str, r"us-central1(?!-)": lambda value: value.rpartition("-")[0]},
        ),
        "machines": _MACHINES,
    },
    "hosts": {
        "head": _in_place_of(r"head\.example\.com", _HOST, "gpu-1"),
        "workers": Answer(
            f"{_HOST}(,{_HOST})*",
            "gpu-2,gpu-3",
            {r"worker-1\.example\.com, worker-2\.example\.com": lambda value: value.replace(",", ", ")},
        ),
        "user": _in_place_of("(?<=ssh_user: )ubuntu", "[A-Za-z_][A-Za-z0-9._-]*", "me"),
    },
    "kuberay": {
        "image": _IMAGE,
        "storage_class": _STORAGE_CLASS,
        "study": _in_place_of("(?<=transkd run )cityscapes_modules", r"[\w./-]+", "cityscapes_modules"),
        "machines": _MACHINES,
    },
    "raycluster": {"image": _IMAGE, "storage_class": _STORAGE_CLASS, "machines": _MACHINES},
    "slurm": {"nodes": _in_place_of("(?<=--nodes=)2", "[1-9][0-9]{0,3}", "4"), **_NODE},
    "slurm-array": {
        "studies": Answer("[1-9][0-9]{0,3}", "4", {"(?<=--array=0-)1": lambda value: str(int(value) - 1)}),
        **_NODE,
    },
}
"""Kind of cluster -> name of an answer -> what it is."""
LAUNCHER = {
    "kuberay": "kubectl-kuberay.yaml",
    "raycluster": "kubectl-raycluster.yaml",
    "slurm": "slurm.sh",
    "slurm-array": "slurm-array.sh",
}


def filled_in(kind: str, answers: Mapping[str, str]) -> dict[str, str]:
    """File name -> text of the launcher and of its spec, for the folder of a checkout. Raises UserError."""
    if kind not in ANSWERS:
        raise unknown("kind of cluster", kind, list(ANSWERS))
    for name, value in answers.items():
        if name not in ANSWERS[kind]:
            raise unknown(f"answer for {kind}", name, list(ANSWERS[kind]))
        if not re.fullmatch(ANSWERS[kind][name].rule, value):
            raise UserError(f"{name} must be such as {ANSWERS[kind][name].example} but got {shown(value)}")
    launcher, spec = LAUNCHER.get(kind, f"ray-up-{kind}.yaml"), f"{kind}.yaml"
    folder = "" if kind in LAUNCHER else "transkd/"  # where `ray up` puts the checkout on the head
    texts = {}
    for file in (launcher, spec):
        text = (Path(__file__).parent / file).read_text(encoding="utf-8")
        for name, value in answers.items():
            for old, new in ANSWERS[kind][name].changes.items():
                text = re.sub(old, new(value), text)
        for own in (launcher, spec):
            text = text.replace(f"cluster/{own}", own)
        texts[file] = re.sub(rf"--cluster {kind}\b(?![.-])", f"--cluster {folder}{spec}", text)
    return texts
