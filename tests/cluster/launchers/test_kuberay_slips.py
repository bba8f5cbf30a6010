"""Slips in KubeRay's files: lint names each by its code and line, and nothing in the files as such."""

import pytest

LIMITS, REQUESTS = 'limits: {cpu: "7", memory: ', 'requests: {cpu: "7", memory: '
RAYJOB = "^  entrypoint: "
AS_QUEUED = "  labels: {kueue.x-k8s.io/queue-name: team}\nspec:\n  entrypoint: "
IMAGE = r"image: &image registry.example.com/transkd:0.1.0"
WORKER_POD = r"terminationGracePeriodSeconds: 120"

SLIPS = [
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
    ("raycluster", "^  authOptions.*", "", "no-token"),
    ("raycluster", "^  enableInTreeAutoscaling: true", "  enableInTreeAutoscaling: yes_", "wrong-value"),
    ("raycluster", "maxReplicas: 8", "maxReplicas: 4", "limits-differ"),
    (
        "raycluster",
        r"  # labels: \{kueue.x-k8s.io/queue-name: fill-in-queue\}",
        "  labels: {kueue.x-k8s.io/queue-name: team}",
        "refused-by-kueue",
    ),
    ("kuberay", "groupName: gpu", "groupName: GPU", "wrong-value"),
    ("kuberay", "groupName: gpu", "groupName: gpu_l4", "wrong-value"),
    ("kuberay", "name: ray-worker", "name: ray_worker", "wrong-value"),
    ("kuberay", "name: ray-head", "name: Ray-Head", "wrong-value"),
    ("kuberay", "name: ray-worker", f"name: {'w' * 64}", "wrong-value"),
    ("raycluster", "groupName: gpu", "groupName: gpu-", "wrong-value"),
    (
        "kuberay",
        "            - name: ray-head",
        "            - {name: logs, image: a/b:1}\n            - name: ray-head",
        "wrong-value",
    ),
]


@pytest.mark.parametrize(("name", "old", "new", "expected"), SLIPS)
def test_a_slip_is_named_by_its_codes_with_the_line_and_a_remedy(check_slip, name, old, new, expected):
    check_slip(name, old, new, expected)


RIGHT = [
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
    ("kuberay", "groupName: gpu", "groupName: gpu-l4"),
    ("kuberay", "name: ray-worker", f"name: {'w' * 63}"),
]


@pytest.mark.parametrize(("name", "old", "new"), RIGHT)
def test_what_is_right_is_not_named(check_right, name, old, new):
    check_right(name, old, new)
