"""Slips of one word in the packaged launcher files: lint names each by its code, and nothing in the files as such."""

import re
from pathlib import Path

import pytest

import cluster
from cluster.launcher import lint_launcher, read
from cluster.spec import load
from orchestrator.verbs.lint import _misspelt

FOLDER = Path(cluster.__file__).parent
FILES = {"aws": FOLDER / "ray-up-aws.yaml", "kuberay": FOLDER / "kubectl-kuberay.yaml"}
DOCKER = 'docker: {image: i, container_name: c, run_options: ["--shm-size%s"]}\nhead_node_type: head'
LIMITS, REQUESTS = 'limits: {cpu: "7", memory: ', 'requests: {cpu: "7", memory: '

SLIPS = [
    *(("aws", "^head_node_type: head", DOCKER % size, "shm-small") for size in ("=1g", "=0.5g", "=67108864", "=512MB")),
    *(("aws", "^head_node_type: head", DOCKER % size, "shm-small") for size in (" 64m", "=1048576k", "=x")),
    *(
        ("aws", "boto3$", f"boto3 '{asked}'", "versions-differ")
        for asked in ("ray[default]>=2.9,<2.10", "ray ~= 2.9.0")
    ),
    *(
        ("aws", "InstanceType: m5.xlarge", f"InstanceType: {kind}", "head-small")
        for kind in ("t3.large", "c5.xlarge", "m5.large", "c6i.large")
    ),
    ("aws", "InstanceMarketOptions", "InstanceMarketOption", "unknown-key"),
    ("aws", "region: us-west-2", "region: us-west", "region-unknown"),
    ("aws", "g5.2xlarge", "g5.2xlrage", "instance-unknown"),
    ("aws", "^setup_commands", "worker_setup_commands", "not-mounted"),
    ("aws", "^setup_commands", "head_setup_commands", "not-mounted"),
    ("aws", "sudo mount -t nfs4", "# sudo mount -t nfs4", "not-mounted"),
    ("aws", r"--address=\$RAY_HEAD_IP:6379", "--address=$RAY_HEAD_IP:6380", "port-differs"),
    ("aws", "--port=6379", "--port=6380", "port-differs"),
    ("kuberay", "sizeLimit: 8Gi", 'sizeLimit: "1e9"', "shm-small"),
    ("kuberay", "sizeLimit: 8Gi", "sizeLimit: 8GB", "wrong-quantity"),
    ("kuberay", 'cpu: "4", memory: 16Gi', 'cpu: "4", memory: 1e9', "head-small"),
    *(("kuberay", f"{LIMITS}28Gi", f"{LIMITS}{memory}", "memory-small") for memory in ("28", "28m", "28k")),
    *(("kuberay", f"{LIMITS}28Gi", f"{LIMITS}{memory}", "wrong-quantity") for memory in ("28GB", "28 Gi", "x")),
    ("kuberay", f"{REQUESTS}28Gi", f"{REQUESTS}29Gi", "limit-exceeded"),
    ("kuberay", 'requests: {cpu: "7"', 'requests: {cpu: "9"', "limit-exceeded"),
    ("kuberay", "claimName: transkd", "claimName: other", "claim-unknown"),
    ("kuberay", "claimName: transkd", "claimName: transkd, readOnly: true", "read-only"),
    ("kuberay", "mountPath: /mnt/transkd", "mountPath: /mnt/transkd, readOnly: true", "read-only"),
    ("kuberay", "  replicas: 0", "  replicas: 9", "limit-exceeded"),
    *(
        ("kuberay", "--cluster kuberay", words, "entrypoint-local")
        for words in ("", "--cluster local", "--cluster=local")
    ),
    *(("kuberay", "--cluster kuberay", f"--cluster {name}", "spec-differs") for name in ("slurm", "nosuchspec")),
    ("kuberay", "apiVersion: ray.io/v1$", "apiVersion: ray.io/v1alpha1", "wrong-value"),
]


def codes(file, name):
    return [finding.code for finding in lint_launcher(read(file), load(name))]


@pytest.mark.parametrize(("name", "old", "new", "code"), SLIPS)
def test_a_slip_is_named(tmp_path, name, old, new, code):
    text, count = re.subn(old, new, FILES[name].read_text(), count=1, flags=re.MULTILINE)
    assert count == 1 and code not in codes(FILES[name], name)
    file = tmp_path / FILES[name].name
    file.write_text(text)
    assert code in codes(file, name)


RIGHT = [
    ("aws", "^head_node_type: head", DOCKER % "=8g"),
    ("aws", "^head_node_type: head", DOCKER % "=2.5gb"),
    ("aws", "boto3$", "boto3 'ray>=2.9'"),
    ("aws", "boto3$", "boto3 array==1.0 xray>=99"),
    ("aws", "InstanceType: m5.xlarge", "InstanceType: m5.2xlarge"),
    ("aws", "region: us-west-2", "region: us-gov-west-1"),
    ("aws", "g5.2xlarge", "p4de.24xlarge"),
    ("aws", "ImageId: &image", "SomethingOfTomorrow: 1\n      ImageId: &image"),
    ("kuberay", "sizeLimit: 8Gi", 'sizeLimit: "8e9"'),
    ("kuberay", f"{LIMITS}28Gi", f'{LIMITS}"32e9"'),
    ("kuberay", "  replicas: 0", "  replicas: 8"),
    ("kuberay", "--cluster kuberay", "--cluster=kuberay"),
    ("kuberay", "--cluster kuberay", "--cluster /etc/specs/mine.yaml"),
]


@pytest.mark.parametrize(("name", "old", "new"), RIGHT)
def test_what_is_right_is_not_named(tmp_path, name, old, new):
    text, count = re.subn(old, new, FILES[name].read_text(), count=1, flags=re.MULTILINE)
    assert count == 1
    file = tmp_path / FILES[name].name
    file.write_text(text)
    assert sorted(codes(file, name)) == sorted(codes(FILES[name], name))


def test_a_misspelt_study_is_named_and_one_of_ones_own_is_not():
    assert read(FILES["kuberay"]).study == "cityscapes_modules"
    (finding,) = _misspelt("cityscape_modules")
    assert "did you mean 'cityscapes_modules'?" in str(finding)
    assert not (
        _misspelt("cityscapes_modules") or _misspelt("mine") or _misspelt("/studies/mine.yaml") or _misspelt("")
    )
