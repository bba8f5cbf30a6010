"""Slips in the packaged launcher files: lint names each by its code and line, and nothing in the files as such."""

import ast
import functools
import re
from collections import Counter
from pathlib import Path

import pytest

import cluster
from cluster.launcher import lint_launcher, read
from cluster.spec import ClusterSpec
from cluster.spec_file import load
from orchestrator.verbs.lint import _misspelt

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
DOCKER = 'docker: {image: i, container_name: c, run_options: ["--shm-size%s"]}\nhead_node_type: head'
LIMITS, REQUESTS = 'limits: {cpu: "7", memory: ', 'requests: {cpu: "7", memory: '
RAYJOB = "^  entrypoint: "
AS_QUEUED = "  labels: {kueue.x-k8s.io/queue-name: team}\nspec:\n  entrypoint: "
IMAGE = r"image: &image registry.example.com/transkd:0.1.0"
SPOT = r"priority: 1 .*\n"
WORKER_POD = r"terminationGracePeriodSeconds: 120"

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
    ("aws", "InstanceType: g5.2xlarge", "InstanceType: g5.2xlrage", "instance-unknown"),
    ("aws", "^setup_commands", "worker_setup_commands", "not-mounted"),
    ("aws", "^setup_commands", "head_setup_commands", "not-mounted"),
    ("aws", "&& aws s3 sync", "# aws s3 sync", "not-mounted"),
    ("aws", "/transkd/data /home/ubuntu/data$", "/transkd/data ~/data", "not-mounted"),
    ("aws", "&& aws s3 sync .*", "&& aws s3 sync /home/ubuntu/data s3://fill-in-bucket/transkd/data", "not-mounted"),
    ("aws", r"      IamInstanceProfile: \*role\n", "", "no-role"),
    ("aws", r"IamInstanceProfile: \*role", "IamInstanceProfiles: *role", "unknown-key no-role"),
    ("aws", "IamInstanceProfile: &role", "SomethingOfTomorrow: &role", "role-not-passed"),
    ("aws", r"--address=\$RAY_HEAD_IP:6379", "--address=$RAY_HEAD_IP:6380", "port-differs"),
    ("aws", "--port=6379", "--port=6380", "port-differs"),
    ("aws", SPOT, "\n", "spot-not-first"),
    ("aws", SPOT, "priority: 0\n", "spot-not-first"),
    ("aws", r"  gpu-on-demand:(.|\n)*?(?=\nhead_node_type)", "", "spot-only"),
    (
        "aws",
        "InstanceType: m5.xlarge",
        "InstanceType: m5.xlarge\n      InstanceMarketOptions: {MarketType: spot}",
        "head-on-spot",
    ),
    ("aws", r"resources: \{CPU: 0\}", "resources: {CPU: 4, GPU: 1}", "gpu-missing always-on limits-differ"),
    ("aws", "cache_stopped_nodes: false", "cache_stopped_nodes: true", "disks-kept"),
    ("aws", r"  cache_stopped_nodes: false.*\n", "", "disks-kept"),
    ("aws", "--dashboard-host=0.0.0.0", "", "dashboard-hidden"),
    ("aws", "--dashboard-host=0.0.0.0", "--dashboard-host 127.0.0.1", "dashboard-hidden"),
    ("aws", "idle_timeout_minutes: 5", "idle_timeout_minutes: 0.5", "idle-timeout-short"),
    ("aws", "idle_timeout_minutes: 5", "idle_timeout_minutes: 180", "idle-timeout-long"),
    ("aws", "priority: 1 ", "priority: 1\n    idle_timeout_s: 7200 ", "idle-timeout-long"),
    ("aws", "^max_workers: 8", "max_workers: 4", "limit-exceeded limits-differ"),
    ("aws", "^max_workers: 8", "max_workers: 0", "limit-exceeded cannot-fit limits-differ"),
    ("aws", "^head_node_type: head", "head_node_type: haed", "refused-by-ray head-unknown"),
    ("aws", "^  region: us-west-2", "  zone: us-west-2", "region-missing"),
    ("aws", r"resources: \{CPU: 6, GPU: 1\} .*\n", "\n", "missing-key resources-unstated"),
    ("aws", "min_workers: 0", "min_workers: 1", "always-on"),
    ("aws", "min_workers: 0", "min_workers: 9", "refused-by-ray limits-swapped always-on"),
    ("aws", r"resources: \{CPU: 6, GPU: 1\}", "resources: {CPU: 4, GPU: 1}", "never-started"),
    ("aws", r"resources: \{CPU: 6, GPU: 1\}", "resources: {CPU: 16, GPU: 1}", "cpus-exceed spot-only limits-differ"),
    ("aws", "InstanceType: g5.2xlarge", "InstanceType: m5.2xlarge", "gpu-missing"),
    ("aws", "--autoscaling-config=", "--autoscaling=", "no-autoscaler"),
    ("aws", "RAY_AUTH_MODE=token ~/env/bin/ray start --head", "~/env/bin/ray start --head", "no-token"),
    ("aws", "^provider:", "providers:", "missing-key unknown-key"),
    ("aws", "type: aws", "type: awss", "refused-by-ray"),
    ("aws", "MarketType: spot", "MarketType: sport", "wrong-value"),
    ("aws", "DeleteOnTermination: true", "DeleteOnTermination: false", "disks-kept"),
    ("aws", "ami-00000000000000000", "ami-123", "wrong-value"),
    ("aws", "region: us-west-2", "region: us-west-2\n  availability_zone: us-west-2a, eu-west-1a", "zone-differs"),
    ("aws", "ray_bootstrap_config.yaml", "ray_bootstrap.yaml", "no-autoscaler"),
    ("aws", "ray start --head", "ray start", "not-joined"),
    ("aws", r"\n  - ulimit -n 65536; RAY_AUTH_MODE=token ~/env/bin/ray start --address.*", "", "not-joined"),
    ("aws", r"\$RAY_HEAD_IP:6379", "127.0.0.1:6379", "not-joined"),
    ("aws", "upscaling_speed: 8.0", "upscaling_speed: fast", "wrong-value"),
    (
        "gcp",
        "machineType: e2-standard-4",
        "machineType: e2-standard-4\n      scheduling: [{provisioningModel: SPOT}]",
        "head-on-spot",
    ),
    ("gcp", "machineType: e2-standard-4", "machineType: e2-medium", "head-small"),
    ("gcp", "machineType: g2-standard-8 ", "machineType: n2-standard-8 ", "gpu-missing"),
    ("gcp", "  region: us-central1", "", "region-missing"),
    ("gcp", "^    gcloud storage rsync", "    # gcloud storage rsync", "not-mounted"),
    ("gcp", "/data /home/ubuntu/data;", "/data /data;", "not-mounted"),
    ("gcp", r"      serviceAccounts: \*role\n", "", "no-role"),
    ("gcp", "auth/cloud-platform", "auth/devstorage.read_only", "no-role"),
    ("gcp", "auth/cloud-platform", "auth/cloud-platform.read-only", "no-role"),
    ("gcp", r"          scopes: .*\n", "", "no-role"),
    ("gcp", "cache_stopped_nodes: false", "cache_stopped_nodes: true", "disks-kept"),
    ("gcp", "autoDelete: true", "autoDelete: false", "disks-kept"),
    ("gcp", "availability_zone: us-central1-a", "availability_zone: us-central2-b", "zone-differs"),
    ("gcp", "zones/us-central1-a/", "zones/us-central1-b/", "zone-differs"),
    ("gcp", "project_id: ", "project: ", "missing-key"),
    ("gcp", "onHostMaintenance: TERMINATE", "onHostMaintenance: MIGRATE", "wrong-value"),
    ("hosts", r"\[worker-1", "[head.example.com, worker-1", "host-twice"),
    ("hosts", "^provider:", "max_workers: 1\nprovider:", "refused-by-ray hosts-unused"),
    *(
        ("hosts", "worker-2.example.com", host, "wrong-value")
        for host in ("localhost", "127.0.0.1", "ubuntu@worker-2", "http://worker-2")
    ),
    ("hosts", "mountpoint -q /mnt/transkd", "mkdir -p /mnt/transkd", "not-mounted"),
    ("hosts", "mountpoint -q /mnt/transkd", "mountpoint -q /mnt/transkd || true", "not-mounted"),
    ("hosts", "--autoscaling-config=~/ray_bootstrap_config.yaml", "", "no-autoscaler"),
    ("hosts", "  head_ip: .*", "", "refused-by-ray"),
    ("kuberay", "sizeLimit: 10Gi", 'sizeLimit: "1e9"', "shm-small"),
    ("kuberay", "sizeLimit: 10Gi", "sizeLimit: 10GB", "wrong-quantity"),
    ("kuberay", "sizeLimit: 10Gi", "sizeLimit: 8Gi", "shm-small"),
    ("kuberay", "sizeLimit: 10Gi", "sizeLimit: 30Gi", "shm-exceeds-memory"),
    ("kuberay", "medium: Memory, ", "", "shm-small"),
    ("kuberay", 'cpu: "4", memory: 16Gi', 'cpu: "4", memory: 1e9', "limit-exceeded shm-exceeds-memory head-small"),
    *(
        ("kuberay", f"{LIMITS}28Gi", f"{LIMITS}{memory}", "limit-exceeded memory-small")
        for memory in ("28", "28m", "28k")
    ),
    *(("kuberay", f"{LIMITS}28Gi", f"{LIMITS}{memory}", "wrong-quantity") for memory in ("28GB", "28 Gi", "x")),
    ("kuberay", f"{REQUESTS}28Gi", f"{REQUESTS}29Gi", "limit-exceeded"),
    ("kuberay", 'requests: {cpu: "7"', 'requests: {cpu: "9"', "limit-exceeded"),
    ("kuberay", 'requests: {cpu: "7"', 'requests: {cpu: "1"', "cpus-overbooked"),
    ("kuberay", 'limits: {cpu: "7", memory: 28Gi, ', 'limits: {cpu: "7", ', "memory-unstated"),
    ("kuberay", 'nvidia.com/gpu: "1"}\n', "nvidia.com/gpu: 0}\n", "gpu-requests-differ"),
    ("kuberay", r"nvidia.com/gpu: \"1\"\}\n", 'nvidia.com/gpus: "1"}\n', "gpu-requests-differ"),
    ("kuberay", "claimName: transkd", "claimName: other", "claim-unknown"),
    ("kuberay", "metadata:", "metadata:\n  namespace: other", "claim-unknown"),
    ("kuberay", "storage: 500Gi", "storage: 500GB", "wrong-quantity"),
    ("kuberay", "storage: 500Gi", "storage: 500", "memory-small"),
    ("kuberay", "effect: NoSchedule", "effect: NoScheduled", "wrong-value"),
    ("kuberay", "operator: Exists", "operator: exists", "wrong-value"),
    ("kuberay", "name: ray-worker", "name: ray-worker\n                imagePullPolicy: Alway", "wrong-value"),
    *(
        ("kuberay", IMAGE, f"image: &image {name}", "wrong-value")
        for name in ("ghcr.io/team/TransKD:0.1.0", "https://ghcr.io/team/transkd:0.1.0")
    ),
    ("kuberay", "backoffLimit: 3", "backoffLimit: -1", "refused-by-kuberay"),
    ("kuberay", "ttlSecondsAfterFinished: 300", "ttlSecondsAfterFinished: -1", "refused-by-kuberay"),
    ("kuberay", f"{RAYJOB}.*", '  entrypoint: ""', "missing-key"),
    *(("kuberay", f"{RAYJOB}transkd run", f"  entrypoint: transkd {verb}", "wrong-value") for verb in ("plan", "runn")),
    ("kuberay", "claimName: transkd", "claimName: transkd, readOnly: true", "read-only"),
    ("kuberay", "mountPath: /mnt/transkd", "mountPath: /mnt/transkd, readOnly: true", "read-only"),
    ("kuberay", "mountPath: /mnt/transkd", "mountPath: /mnt/other", "not-mounted"),
    ("kuberay", "ReadWriteMany", "ReadWriteOnce", "not-shared"),
    ("kuberay", "  replicas: 0", "  replicas: 9", "limit-exceeded"),
    ("kuberay", "maxReplicas: 8", "maxReplicas: 2147483647", "limits-differ"),
    ("kuberay", "maxReplicas: 8", "maxReplicas: 0", "cannot-fit limits-differ"),
    *(
        ("kuberay", "--cluster kuberay$", words, "entrypoint-local")
        for words in ("", "--cluster local", "--cluster=local")
    ),
    *(("kuberay", "--cluster kuberay$", f"--cluster {name}", "spec-differs") for name in ("slurm", "nosuchspec")),
    ("kuberay", "apiVersion: ray.io/v1$", "apiVersion: ray.io/v1alpha1", "wrong-value"),
    ("kuberay", 'num-cpus: "0" ', 'num-gpus: "1" ', "gpu-missing always-on limits-differ"),
    ("kuberay", r"- \{key: nvidia.com/gpu, operator", "- {key: spot, operator", "no-toleration"),
    (
        "kuberay",
        WORKER_POD,
        WORKER_POD + "\n            nodeSelector: {kubernetes.azure.com/scalesetpriority: spot}",
        "no-toleration spot-only",
    ),
    (
        "kuberay",
        WORKER_POD,
        WORKER_POD + '\n            nodeSelector: {cloud.google.com/gke-spot: "true"}',
        "spot-only",
    ),
    ("kuberay", "image: [*]image", "image: other.example.org/transkd:0.1.0", "images-differ"),
    ("kuberay", IMAGE, "image: &image registry.example.com/transkd", "image-unpinned"),
    ("kuberay", IMAGE, "image: &image registry.example.com:5000/transkd:latest", "image-unpinned"),
    ("kuberay", WORKER_POD, WORKER_POD + "\n            restartPolicy: Always", "refused-by-kuberay"),
    ("kuberay", "RayJob\nmetadata:\n  name: transkd", "RayJob\nmetadata:\n  name: TransKD", "refused-by-kuberay"),
    ("kuberay", "RayJob\nmetadata:\n  name: transkd", f"RayJob\nmetadata:\n  name: {'t' * 48}", "refused-by-kuberay"),
    ("kuberay", f"spec:\n{RAYJOB[1:]}", AS_QUEUED, "refused-by-kueue"),
    ("kuberay", "shutdownAfterJobFinishes: true", "shutdownAfterJobFinishes: false", "stays-up"),
    ("kuberay", "ttlSecondsAfterFinished: 300", "ttlSecondsAfterFinished: 86400", "stays-up"),
    ("kuberay", "backoffLimit: 3", "backoffLimit: 0", "not-restarted"),
    ("kuberay", "  backoffLimit: 3 .*\n", "", "not-restarted"),
    ("kuberay", "backoffLimit: 3", "backoffLimit: 3\n  activeDeadlineSeconds: 3600", "ended-by-deadline"),
    *(
        ("kuberay", RAYJOB, f"  {key}: 1\n  entrypoint: ", "driver-on-worker")
        for key in ("entrypointNumCpus", "entrypointNumGpus")
    ),
    ("kuberay", RAYJOB, "  submissionMode: InteractiveMode\n  entrypoint: ", "waits-for-a-person"),
    ("kuberay", RAYJOB, "  submissionMode: Http\n  entrypoint: ", "wrong-value"),
    ("kuberay", RAYJOB, "  suspend: true\n  entrypoint: ", "waits-for-a-person"),
    ("kuberay", RAYJOB, "  clusterSelector: {ray.io/cluster: mine}\n  entrypoint: ", "spec-ignored"),
    ("kuberay", "authOptions: {mode: token}", "authOptions: {mode: disabled}", "no-token"),
    ("kuberay", "enableInTreeAutoscaling: true", "enableInTreeAutoscaling: false", "no-autoscaler"),
    ("kuberay", "idleTimeoutSeconds: 300", "idleTimeoutSeconds: 5", "idle-timeout-short"),
    ("kuberay", "idleTimeoutSeconds: 300", "idleTimeoutSeconds: 86400", "idle-timeout-long"),
    ("kuberay", WORKER_POD, "terminationGracePeriodSeconds: 20", "grace-period-short"),
    ("kuberay", 'num-cpus: "6"', 'num-cpus: "4"', "cannot-fit machine-differs limits-differ"),
    ("kuberay", "rayVersion: .*", 'rayVersion: "2.9.0"', "versions-differ"),
    ("slurm", "cpus-per-task=26", "cpus-per-task=4", "cannot-fit"),
    ("slurm", "gpus-per-node=4", "partition=gpu", "cannot-fit"),
    ("slurm", "ntasks-per-node=1", "ntasks-per-node=4", "tasks-per-node"),
    ("slurm", "--ntasks-per-node=1", "-n 8", "tasks-per-node"),
    ("slurm", "--time=", "--timee=", "unknown-key time-unstated"),
    *(("slurm", "time=24:00:00", f"time={limit}", "wrong-value") for limit in ("24", "24:00", "24h", "1d")),
    *(("slurm", "#SBATCH --nodes=2", f"{sign} --nodes=1", "option-ignored") for sign in ("# SBATCH", "#sbatch")),
    *(("slurm", "--nodes=2", f"--nodes{value}", "wrong-value") for value in ("=two", "=0", " = 2")),
    ("slurm", "--nodes=2", "-nodes=2", "unknown-key"),
    ("slurm", "cpus-per-task=26", "cpus-per-task=26\n#SBATCH --mem=128", "memory-small"),
    ("slurm", "cpus-per-task=26", "cpus-per-task=26\n#SBATCH --mem-per-cpu=4", "memory-small"),
    ("slurm", "gpus-per-node=4", "gres=gpus:4", "cannot-fit"),
    ("slurm", "^#!/bin/bash\n", "", "wrong-value"),
    ("slurm-array", "^#SBATCH --array=0-1", "#SBATCH --array=0..1", "wrong-value"),
    ("slurm", "#SBATCH --requeue\n", "", "not-restarted"),
    ("slurm", "signal=B:USR1@300", "signal=USR1@300", "not-restarted"),
    ("slurm", "signal=B:USR1@300", "signal=B:USR2@300", "not-restarted"),
    ("slurm", "signal=B:USR1@300", "signal=B:USR1@10", "grace-period-short"),
    ("slurm", "    scontrol requeue", "    true", "not-restarted"),
    ("slurm", "^set -euo pipefail", "set -euo pipefail\n#SBATCH --mem=64G", "option-ignored"),
    ("slurm", "^export RAY_AUTH_MODE=token.*", "", "no-token"),
    ("slurm", "--dashboard-host=0.0.0.0 ", "", "dashboard-hidden"),
    ("slurm", '^: "\\$\\{TRANSKD_STORE.*', "", "store-not-shared"),
    ("slurm", "--cluster slurm", "", "entrypoint-local"),
    ("slurm", "--cluster slurm", "--cluster kuberay", "spec-differs"),
    ("slurm-array", "cpus-per-task=26", "cpus-per-task=4", "cannot-fit"),
    ("slurm-array", "    scontrol requeue", "    true", "not-restarted"),
    ("slurm-array", "--cluster slurm-array", "--cluster slurm", "spec-differs"),
    ("raycluster", "^  authOptions.*", "", "no-token"),
    ("raycluster", "^  enableInTreeAutoscaling: true", "  enableInTreeAutoscaling: yes_", "wrong-value"),
    ("raycluster", "maxReplicas: 8", "maxReplicas: 4", "limits-differ"),
    (
        "raycluster",
        r"  # labels: \{kueue.x-k8s.io/queue-name: fill-in-queue\}",
        "  labels: {kueue.x-k8s.io/queue-name: team}",
        "refused-by-kueue",
    ),
    ("gpu", "accelerators: L4:4", "memory: 64", "cannot-fit"),
    ("gpu", "cpus: 16[+]", "cpus: 2", "cannot-fit"),
    ("gpu", "  autostop: .*\n", "", "stays-up"),
    ("gpu", "autostop: .*", "autostop: false", "stays-up"),
    ("gpu", "idle_minutes: 30, down", "idle_minutes: 600, down", "idle-timeout-long"),
    ("gpu", "down: false", "dwon: false", "unknown-key"),
    ("gpu", "disk_size: 256", "disc_size: 256", "unknown-key"),
    ("gpu", "use_spot: false", "use_spot: true", "head-on-spot"),
    ("gpu", "^workdir: .", "num_nodes: 2", "hosts-unused"),
    ("gpu", "^workdir: .", "workdirs: .", "unknown-key"),
    ("gpu", "--cluster gpu$", "", "entrypoint-local"),
    ("gpu", "--cluster gpu$", "--cluster aws", "spec-differs"),
]

WHERE = {
    "always-on": "head:|headGroupSpec:",
    "cannot-fit": "gpu|cpus-per-task|accelerators|resources:",
    "claim-unknown": "volumes:",
    "gpu-requests-differ": "requests",
    "cpus-exceed": "InstanceType",
    "dashboard-hidden": "- >-",
    "disks-kept": "provider:",
    "entrypoint-local": "run:",
    "gpu-missing": "InstanceType",
    "head-on-spot": "head:",
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


@pytest.mark.parametrize(("name", "old", "new", "expected"), SLIPS)
def test_a_slip_is_named_by_its_codes_with_the_line_and_a_remedy(tmp_path, name, old, new, expected):
    file, first, last = changed(tmp_path, name, old, new)
    found = lint_launcher(read(file), load(name))
    more = Counter(finding.code for finding in found) - as_packaged(name)
    assert set(more) == set(expected.split())
    lines = file.read_text().splitlines()
    for finding in found:
        if finding.code in more:
            assert finding.message and finding.remedy
            assert first <= finding.line <= last or re.search(WHERE[finding.code], lines[finding.line - 1])


def codes_in(file):
    """The codes that the findings of a source have."""
    calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    return {call.args[0].value for call in calls if ast.unparse(call.func) == "Finding"}


SOURCES = [*FOLDER.glob("*.py"), FOLDER.parent / "orchestrator" / "verbs" / "lint.py"]


def test_the_page_lists_every_code_and_no_other():
    page = (FOLDER.parent / "docs" / "clusters.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| (.+) \| (.+) \|$", page, re.MULTILINE)
    listed = [code for code, _, _ in rows]
    assert listed == sorted(listed)
    assert set(listed) == set().union(*map(codes_in, SOURCES))


READERS = (
    "launcher",
    "launcher_file",
    "kuberay",
    "pod",
    "rayjob",
    "ray_up",
    "roles",
    "aws",
    "gcp",
    "schemas",
    "skypilot",
    "slurm",
    "spot",
)


def test_every_code_of_a_launcher_file_has_a_slip():
    of_launchers = set().union(*(codes_in(FOLDER / f"{name}.py") for name in READERS))
    assert of_launchers - {"placeholder", "head-takes-runs"} <= {
        code for *_, expected in SLIPS for code in expected.split()
    }
    assert len(SLIPS) >= 40


def test_a_head_on_which_runs_fit_is_named(tmp_path):
    spec = ClusterSpec(address="auto", cpus_per_worker=2, max_cpus=48, store="/mnt/transkd/store")
    assert "head-takes-runs" not in codes(FILES["aws"], spec)
    file, *_ = changed(tmp_path, "aws", r"resources: \{CPU: 0\}", "resources: {CPU: 4}")
    assert "head-takes-runs" in codes(file, spec)
    (found,) = [finding for finding in lint_launcher(read(file), spec) if finding.code == "head-takes-runs"]
    assert file.read_text().splitlines()[found.line - 1].strip() == "head:"


def test_a_job_in_kueues_queue_begins_at_its_full_size(tmp_path):
    text = FILES["kuberay"].read_text()
    for old, new in (
        ("  # labels: {kueue.x-k8s.io/queue-name: fill-in-queue}", "  labels: {kueue.x-k8s.io/queue-name: team}"),
        ("enableInTreeAutoscaling: true", "enableInTreeAutoscaling: false"),
        ("  replicas: 0", "  replicas: 8"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    (tmp_path / FILES["kuberay"].name).write_text(text)
    assert Counter(codes(tmp_path / FILES["kuberay"].name, load("kuberay"))) == as_packaged("kuberay")


RIGHT = [
    ("aws", "^head_node_type: head", DOCKER % "=8g"),
    ("aws", "^head_node_type: head", DOCKER % "=2.5gb"),
    ("aws", "boto3$", "boto3 'ray>=2.9'"),
    ("aws", "boto3$", "boto3 array==1.0 xray>=99"),
    ("aws", "InstanceType: m5.xlarge", "InstanceType: m5.2xlarge"),
    ("aws", "region: us-west-2", "region: us-gov-west-1"),
    ("aws", "InstanceType: g5.2xlarge", "InstanceType: p4de.24xlarge"),
    ("aws", "ImageId: &image", "SomethingOfTomorrow: 1\n      ImageId: &image"),
    ("aws", "--dashboard-host=0.0.0.0", "--dashboard-host 0.0.0.0"),
    ("aws", "idle_timeout_minutes: 5", "idle_timeout_minutes: 60"),
    ("aws", "IamInstanceProfile: &role {Name: transkd}", "IamInstanceProfile: &role {Arn: 'arn:aws:iam::1:x'}"),
    ("aws", r"IamInstanceProfile: \*role", "LaunchTemplate: {LaunchTemplateId: lt-0a1b2c3d}"),
    ("aws", "&& aws s3 sync --only-show-errors", "&& s5cmd sync"),
    ("gcp", "auth/cloud-platform", "auth/devstorage.read_write"),
    ("gcp", "preemptible: true", "preemptible: false"),
    ("gcp", "cache_stopped_nodes: false", "use_internal_ips: true"),
    ("aws", "region: us-west-2", "region: us-west-2\n  availability_zone: us-west-2a,us-west-2-lax-1a"),
    ("aws", "ami-00000000000000000", "resolve:ssm:/my/image"),
    ("aws", r"ray start --address=\$RAY_HEAD_IP:6379", 'ray start --block --address "$RAY_HEAD_IP:6379"'),
    ("hosts", "^provider:", "max_workers: 2\nprovider:"),
    ("hosts", r"worker_ips: .*", "worker_ips: ['10.0.0.2', 'fe80::1']"),
    ("hosts", r"head_ip: .*\n.*", "head_ip: localhost\n  worker_ips: []"),
    ("hosts", "mountpoint -q /mnt/transkd", "mountpoint -q /mnt"),
    ("kuberay", "sizeLimit: 10Gi", 'sizeLimit: "10e9"'),
    ("kuberay", "sizeLimit: 10Gi", "sizeLimit: 12Gi"),
    ("kuberay", f"{LIMITS}28Gi", f'{LIMITS}"32e9"'),
    ("kuberay", "  replicas: 0", "  replicas: 8"),
    ("kuberay", "--cluster kuberay", "--cluster=kuberay"),
    ("kuberay", "--cluster kuberay", "--cluster /etc/specs/mine.yaml"),
    (
        "kuberay",
        IMAGE,
        f"image: &image registry.example.com/transkd@sha256:{'0' * 64} # registry.example.com/transkd:0.1.0",
    ),
    ("kuberay", r"\{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule\}", "{operator: Exists}"),
    ("kuberay", "storage: 500Gi", "storage: 1Ti"),
    ("kuberay", IMAGE, "image: &image GHCR.io:5000/team/trans-kd_x:V0.1.0-RC"),
    ("kuberay", RAYJOB, "  entrypoint: >-\n    "),
    ("slurm", "time=24:00:00", "time=1-00"),
    ("slurm", "time=24:00:00", "time=UNLIMITED"),
    ("slurm", "--requeue", "--requeue\n##SBATCH --qos=high\n# SBATCH lines come first\n# sbatch --array=0-1 me"),
    ("slurm", "cpus-per-task=26", "cpus-per-task=26\n#SBATCH --mem=0"),
    ("slurm", "cpus-per-task=26", "cpus-per-task=26\n#SBATCH --mem-per-cpu=4000"),
    ("slurm", "--gpus-per-node=4", "--gres=gpu:a100:4,tmp:200G"),
    ("slurm", "--gpus-per-node=4", "--gres=gpu:4(S:0-1)"),
    ("slurm", "--gpus-per-node=4", "--gres=gpu"),
    ("slurm-array", "^#SBATCH --array=0-1", "#SBATCH --array=0,2-8:2%1"),
    ("slurm", "--nodes=2", "-N 2-4"),
    ("slurm", "--gpus-per-node=4", "--gres=gpu:a100:4"),
    ("slurm", "--gpus-per-node=4", "-G8"),
    ("slurm", "signal=B:USR1@300", "signal=B:SIGUSR1@600"),
    ("gpu", "L4:4", "{L4: 8}"),
    ("gpu", "L4:4", "[L4:4, A10G:4]"),
    ("gpu", "idle_minutes: 30, down: false", "idle_minutes: 5, down: true"),
]


@pytest.mark.parametrize(("name", "old", "new"), RIGHT)
def test_what_is_right_is_not_named(tmp_path, name, old, new):
    file, *_ = changed(tmp_path, name, old, new)
    assert set(codes(file, load(name))) <= {"placeholder"}


@pytest.mark.parametrize("name", FILES)
def test_only_what_is_to_be_filled_in_is_named_in_a_packaged_file(name):
    assert set(as_packaged(name)) <= {"placeholder"}


def test_a_misspelt_study_is_named_and_one_of_ones_own_is_not():
    assert read(FILES["kuberay"]).study == "cityscapes_modules"
    (finding,) = _misspelt("cityscape_modules", 33)
    assert str(finding).startswith("study-unknown: line 33: ") and "did you mean 'cityscapes_modules'?" in str(finding)
    assert not (
        _misspelt("cityscapes_modules") or _misspelt("mine") or _misspelt("/studies/mine.yaml") or _misspelt("")
    )
