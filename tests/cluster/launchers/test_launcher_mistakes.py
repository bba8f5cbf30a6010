"""Mistakes in launcher files: each kind has its code and its line, and no file ends lint in an exception."""

import copy
import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

import cluster
from cluster.launchers.launcher_file import documents as documents_of
from cluster.launchers.lint_launcher import is_launcher, lint_launcher, read
from cluster.launchers.quantities import amount, docker_bytes
from cluster.spec import SpecError
from cluster.spec_file import load

FOLDER = Path(cluster.__file__).parent
AWS, KUBERAY = FOLDER / "ray-up-aws.yaml", FOLDER / "kubectl-kuberay.yaml"
HOSTS, SKYPILOT = FOLDER / "ray-up-hosts.yaml", FOLDER / "sky-gpu.yaml"
SPECS = {AWS: "aws", KUBERAY: "kuberay", HOSTS: "hosts", SKYPILOT: "gpu"}
WHOLE = ("spec", "rayClusterSpec")
HEAD, WORKER = (*WHOLE, "headGroupSpec"), (*WHOLE, "workerGroupSpecs", 0)
POD = ("template", "spec")
LIMITS = (*POD, "containers", 0, "resources", "limits")
GPU = ("available_node_types", "gpu")
NONE = object()


def documents(path):
    return list(yaml.safe_load_all(path.read_text()))


def changed(found, number, keys, value):
    found = copy.deepcopy(found)  # without the anchors of the file, which would change several places
    place = found[number] = yaml.safe_load(yaml.dump(found[number], Dumper=Plain))
    for key in keys[:-1]:
        place = place[key]
    if value is NONE:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    return found


class Plain(yaml.SafeDumper):
    """Writes no anchors."""

    def ignore_aliases(self, data):
        return True


def findings(folder, path, found):
    file = folder / path.name
    file.write_text(yaml.dump_all(found, Dumper=Plain, sort_keys=False))
    return file, lint_launcher(read(file), load(SPECS[path]))


CASES = [
    (AWS, 0, ("max_worker",), 8, "unknown-key"),
    (AWS, 0, (*GPU, "min_worker"), 0, "unknown-key"),
    (AWS, 0, ("max_workers",), "eight", "wrong-value"),
    (AWS, 0, (*GPU, "resources"), [6, 1], "wrong-value"),
    (AWS, 0, (*GPU, "min_workers"), 20, "refused-by-ray"),
    (AWS, 0, ("provider",), NONE, "missing-key"),
    (AWS, 0, (*GPU, "node_config", "InstanceType"), "m5.2xlarge", "gpu-missing"),
    (AWS, 0, (*GPU, "node_config", "InstanceType"), "g5.xlarge", "cpus-exceed"),
    (AWS, 0, ("available_node_types", "head", "node_config", "InstanceType"), "t3.small", "head-small"),
    (AWS, 0, ("idle_timeout_minutes",), 0.1, "idle-timeout-short"),
    (AWS, 0, ("head_start_ray_commands",), ["ray stop", "ray start --head"], "no-autoscaler"),
    (AWS, 0, ("setup_commands",), ["pip install 'ray[default]==2.9.0'"], "versions-differ"),
    (AWS, 0, ("setup_commands",), ["pip install 'ray~=2'"], "versions-differ"),
    (AWS, 0, ("setup_commands",), ["pip install 'ray>=2.*'"], "versions-differ"),
    (AWS, 0, ("docker",), {"image": "rayproject/ray:2.9.0-gpu", "container_name": "ray"}, "versions-differ"),
    (AWS, 0, ("docker",), {"image": "i", "container_name": "c", "run_options": ["--shm-size=64m"]}, "shm-small"),
    (AWS, 0, (*GPU, "min_workers"), 9, "limits-swapped"),
    (AWS, 0, ("file_mounts",), {"/home/ubuntu/transkd": "."}, "no-token"),
    (AWS, 0, ("worker_start_ray_commands",), ["ray start --address=$RAY_HEAD_IP:6379"], "no-token"),
    (KUBERAY, 1, (*WORKER, "minReplicas"), 9, "limits-swapped"),
    (KUBERAY, 1, ("spec", "shutdownAfterJobFinishes"), False, "stays-up"),
    (KUBERAY, 1, ("spec", "entrypoint"), "transkd run cityscapes_modules", "entrypoint-local"),
    (KUBERAY, 1, (*WORKER, "maxReplica"), 8, "unknown-key"),
    (KUBERAY, 1, (*WORKER, *POD, "container"), [], "unknown-key"),
    (KUBERAY, 1, (*WORKER, "maxReplicas"), "8", "wrong-value"),
    (KUBERAY, 1, (*WORKER, *POD, "containers"), NONE, "missing-key"),
    (KUBERAY, 1, (*WHOLE, "authOptions"), NONE, "no-token"),
    (KUBERAY, 1, (*WHOLE, "authOptions", "mode"), "disabled", "no-token"),
    (KUBERAY, 1, (*WHOLE, "rayVersion"), "2.9.0", "versions-differ"),
    (KUBERAY, 1, (*WORKER, *POD, "containers", 0, "image"), "rayproject/ray:2.9.0", "versions-differ"),
    (KUBERAY, 1, (*WORKER, "rayStartParams"), {"num-gpus": "4"}, "gpu-missing"),
    (KUBERAY, 1, (*WORKER, *POD, "nodeSelector"), {"node.kubernetes.io/instance-type": "m5.xlarge"}, "gpu-missing"),
    (KUBERAY, 1, (*WORKER, "rayStartParams"), {"num-cpus": "16"}, "cpus-exceed"),
    (KUBERAY, 1, (*HEAD, *LIMITS, "memory"), "2Gi", "head-small"),
    (KUBERAY, 1, (*WORKER, *POD, "volumes", 1, "emptyDir", "sizeLimit"), "64Mi", "shm-small"),
    (KUBERAY, 1, (*WORKER, *POD, "volumes", 1, "emptyDir"), {}, "shm-small"),
    (KUBERAY, 1, (*WORKER, *POD, "terminationGracePeriodSeconds"), NONE, "grace-period-short"),
    (KUBERAY, 1, (*WORKER, *POD, "terminationGracePeriodSeconds"), 5, "grace-period-short"),
    (KUBERAY, 1, (*WHOLE, "autoscalerOptions", "idleTimeoutSeconds"), 5, "idle-timeout-short"),
    (KUBERAY, 1, (*WORKER, "idleTimeoutSeconds"), 5, "idle-timeout-short"),
    (KUBERAY, 0, ("spec", "accessModes"), ["ReadWriteOnce"], "not-shared"),
    (KUBERAY, 1, (*WORKER, *POD, "volumes", 0), {"name": "shared", "hostPath": {"path": "/mnt"}}, "not-mounted"),
]


@pytest.mark.parametrize(("path", "number", "keys", "value", "code"), CASES)
def test_each_kind_of_mistake_has_its_code_and_a_line_of_the_file(tmp_path, path, number, keys, value, code):
    file, found = findings(tmp_path, path, changed(documents(path), number, keys, value))
    hits = [finding for finding in found if finding.code == code]
    assert hits, [str(finding) for finding in found]
    assert all(hit.message and hit.remedy for hit in hits)
    lines = len(file.read_text().splitlines())
    assert code in ("refused-by-ray", "missing-key", "not-mounted") or all(1 <= hit.line <= lines for hit in hits)


def test_the_line_is_that_of_the_key(tmp_path):
    file, found = findings(tmp_path, KUBERAY, changed(documents(KUBERAY), 1, (*WHOLE, "rayVersion"), "2.9.0"))
    (finding,) = [finding for finding in found if finding.code == "versions-differ"]
    assert file.read_text().splitlines()[finding.line - 1].strip() == "rayVersion: 2.9.0"
    assert str(finding).startswith(f"versions-differ: line {finding.line}: rayVersion is 2.9.0, ")


def test_no_token_is_found_in_a_ray_up_file(tmp_path):
    (tmp_path / AWS.name).write_text(AWS.read_text().replace("RAY_AUTH_MODE=token", ""))
    assert "no-token" in {finding.code for finding in read(tmp_path / AWS.name).findings}


def places(data, keys=()):
    yield keys
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from places(value, (*keys, key))


VALUES = (None, 3, 1.5, "text", [], {}, [None], {"a": None}, True)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, len(VALUES), 3))
@pytest.mark.parametrize("path", SPECS, ids=SPECS.get)
def test_no_value_of_another_type_ends_in_an_exception(tmp_path, path, first):
    number = len(documents(path)) - 1
    for turn, keys in enumerate(list(places(documents(path)[number]))[1:], first):
        if keys[-1] not in ("apiVersion", "kind", "cluster_name", "run"):
            findings(tmp_path, path, changed(documents(path), number, keys, VALUES[turn % len(VALUES)]))


@pytest.mark.parametrize(
    "text",
    [
        "cluster_name: &a {b: *a}\n",
        "cluster_name: x\na: &a [x, x]\n"
        + "".join(f"{new}: &{new} [*{old}, *{old}]\n" for old, new in pairwise("abcdefghijklmnopqr")),
        "cluster_name: x\na: " + "[" * 3000 + "]" * 3000 + "\n",
        "cluster_name: x\na: &a {k: 1}\n"
        + "".join(f"{new}: &{new} {{<<: [{', '.join([f'*{old}'] * 9)}]}}\n" for old, new in pairwise("abcdefghi")),
        "cluster_name: x\na:\n" + "".join(f"{' ' * n}-\n" for n in range(600)),
        "cluster_name: [\n",
        "cluster_name: x\nmax_workers: 8\nmax_workers: 2\n",
        "kind: RayJob\nspec: {replicas: 0, replicas: 8}\n",
        "cluster_name: x\nmax_workers: 010\n",
        "cluster_name: x\nmax_workers: 1_0\n",
        "kind: RayJob\nspec: {suspend: yes}\n",
        "cluster_name: x\nmax_workers: " + "9" * 5000 + "\n",
        "cluster_name: !!python/name:os.system x\n",
        "cluster_name: x\n" + "#" * 200_000,
    ],
    ids=[
        "recursive",
        "bomb",
        "nested",
        "merges",
        "blocks",
        "broken",
        "twice",
        "inside",
        "octal",
        "underscore",
        "yes",
        "digits",
        "tag",
        "long",
    ],
)
def test_a_file_that_is_no_launcher_is_refused_at_once(tmp_path, text):
    (tmp_path / "odd.yaml").write_text(text)
    begun = time.process_time()
    with pytest.raises(SpecError, match="launcher file"):
        read(tmp_path / "odd.yaml")
    assert time.process_time() - begun < 5


def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "device.yaml").symlink_to("/dev/zero")
    (tmp_path / "folder.yaml").mkdir()
    for name in ("pipe", "device", "folder", "none"):
        file = tmp_path / f"{name}.yaml"
        assert not is_launcher(file)
        with pytest.raises(SpecError, match=f"{name}.yaml"):
            read(file)
        with pytest.raises(SpecError, match=f"{name}.yaml"):
            load(file)


def test_several_documents_and_anchors_are_read(tmp_path):
    text = "kind: PersistentVolumeClaim\n---\n# nothing\n---\nkind: RayCluster\nspec: &a {x: 1}\nmore: {<<: *a}\n"
    (tmp_path / "several.yaml").write_text(text)
    first, second, third = documents_of(tmp_path / "several.yaml")
    assert (first.data, second.data, third.data["more"]) == ({"kind": "PersistentVolumeClaim"}, None, {"x": 1})
    assert third.line("spec") == 6


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("500m", 0.5),
        ("16Gi", 2**34),
        ("2", 2.0),
        (1.5, 1.5),
        ("7k", 7000.0),
        ("1e9", 1e9),
        ("1E", 1e18),
        ("8GB", None),
        ("x", None),
        (None, None),
    ],
)
def test_quantities_are_those_of_kubernetes(text, value):
    assert amount(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("64m", 2**26), ("0.5g", 2**29), ("512MB", 2**29), ("2GiB", 2**31), ("1024", 1024), ("8 g", 2**33), ("g", None)],
)
def test_sizes_are_those_of_docker(text, value):
    assert docker_bytes(text) == value


@pytest.mark.slow
def test_lint_says_all_of_it_in_lines_and_nothing_else(tmp_path):
    file, _ = findings(tmp_path, AWS, changed(documents(AWS), 0, ("max_worker",), 8))
    command = [sys.executable, "-m", "orchestrator", "cluster", "lint", str(file), "--cluster", "aws"]
    done = subprocess.run(command, cwd=FOLDER.parent, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert any(line.startswith("unknown-key: line ") and "'max_workers'" in line for line in done.stdout.splitlines())
