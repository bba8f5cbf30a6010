"""The packaged launcher files, changed in one place and checked by lint."""

import functools
import re
from collections import Counter
from pathlib import Path

import pytest

import cluster
from cluster.launchers.lint_launcher import lint_launcher, read
from cluster.spec_file import load

FOLDER = Path(cluster.__file__).parent
FILES = {
    "aws": FOLDER / "ray-up-aws.yaml",
    "gcp": FOLDER / "ray-up-gcp.yaml",
    "hosts": FOLDER / "ray-up-hosts.yaml",
    "kuberay": FOLDER / "kubectl-kuberay.yaml",
    "raycluster": FOLDER / "kubectl-raycluster.yaml",
    "slurm-array": FOLDER / "slurm-array.sh",
    "slurm": FOLDER / "slurm.sh",
    "gpu": FOLDER / "sky-gpu.yaml",
}

WHERE = {
    "always-on": "head:|headGroupSpec:",
    "cannot-fit": "gpu|cpus-per-task|accelerators|resources:",
    "claim-unknown": "volumes:",
    "gpu-requests-differ": "requests",
    "cpus-exceed": "InstanceType|machineType",
    "dashboard-hidden": "- >-",
    "disks-kept": "provider:",
    "entrypoint-local": "run:",
    "gpu-missing": "InstanceType|machineType",
    "gpus-starved": "accelerators",
    "gpus-unused": "InstanceType|machineType",
    "head-on-spot": "head:",
    "home-differs": "/home/ubuntu",
    "image-unpinned": "image:",
    "limit-exceeded": "max_workers|requests",
    "limits-differ": "gpu",
    "machine-differs": "gpu",
    "missing-key": "cluster_name|gpu:|provider:|spec:",
    "never-started": "gpu:",
    "no-autoscaler": "- >-|rayClusterSpec",
    "not-joined": "- >-|ray stop|start_ray_commands",
    "no-role": "gpu",
    "no-token": "- >-|ray start|^spec:",
    "no-toleration": "tolerations:",
    "not-mounted": "- >-|volumeMounts|setup_commands|s3 sync",
    "not-restarted": "^spec:|signal",
    "port-differs": "ray start",
    "processor-differs": "InstanceType|machineType",
    "read-only": "volumeMounts",
    "refused-by-ray": "cluster_name",
    "region-missing": "provider:",
    "resources-unstated": "gpu:",
    "role-not-passed": "head:",
    "shm-exceeds-memory": "emptyDir",
    "spec-differs": "run:",
    "spot-not-first": "gpu:",
    "spot-only": "gpu",
    "stays-up": "resources:",
    "store-not-shared": "ray start",
    "time-unstated": "nodes",
    "wrong-value": "[iI]mage",
    "zone-differs": "diskType",
}
"""What the line of a finding has where it is not one of the slip, as what is wrong is absent or elsewhere."""


@functools.cache
def as_packaged(name):
    return Counter(codes(FILES[name], load(name)))


def codes(file, spec):
    return [finding.code for finding in lint_launcher(read(file), spec)]


def changed(folder, name, old, new):
    """The file with one change, and the first and last line of the change."""
    text = FILES[name].read_text()
    found = re.search(old, text, re.MULTILINE)
    assert found, old
    file = folder / FILES[name].name
    file.write_text(text[: found.start()] + new + text[found.end() :])
    first = text[: found.start()].count("\n") + 1
    return file, first, first + new.count("\n")


@pytest.fixture
def packaged():
    """Name -> packaged launcher file."""
    return FILES


@pytest.fixture
def codes_of():
    """Function of (launcher file, spec): the codes of the findings."""
    return codes


@pytest.fixture
def codes_as_packaged():
    """Function of a name: how often each code is found in the packaged file, with the packaged spec."""
    return as_packaged


@pytest.fixture
def with_change(tmp_path):
    """Function of (name, regular expression, replacement): the packaged file with one change."""
    return lambda name, old, new: changed(tmp_path, name, old, new)[0]


@pytest.fixture
def check_slip(tmp_path):
    """Function of (name, regular expression, replacement, codes): the change is named by these codes and no others."""

    def check(name, old, new, expected):
        file, first, last = changed(tmp_path, name, old, new)
        found = lint_launcher(read(file), load(name))
        more = Counter(finding.code for finding in found) - as_packaged(name)
        assert set(more) == set(expected.split())
        lines = file.read_text().splitlines()
        for finding in found:
            if finding.code in more:
                assert finding.message and finding.remedy
                assert first <= finding.line <= last or re.search(WHERE[finding.code], lines[finding.line - 1])

    return check


@pytest.fixture
def check_right(tmp_path):
    """Function of (name, regular expression, replacement): the change is named by no code."""

    def check(name, old, new):
        file, *_ = changed(tmp_path, name, old, new)
        assert set(codes(file, load(name))) <= {"placeholder"}

    return check
