"""Launcher files hold together: what Ray's own code reads in them, what it misses, and the spec that goes with each."""

import copy
import importlib.metadata
import os
from pathlib import Path

import jsonschema
import pytest
import yaml

import cluster
from cluster.concurrency import concurrency_on, footprint
from cluster.launchers.lint_launcher import Machine, lint_launcher, read
from cluster.spec import SpecError
from cluster.spec_file import load

FOLDER = Path(cluster.__file__).parent
RAY_UP = sorted(set(FOLDER.glob("ray-up-*.yaml")) - {FOLDER / "ray-up-hosts.yaml"})
"""Those whose machines a cloud starts."""
KUBECTL = sorted(FOLDER.glob("kubectl-*.yaml"))


def name_of(path):
    return path.stem.rpartition("-")[2]


def documents(path):
    return list(yaml.safe_load_all(path.read_text()))


@pytest.fixture
def edited(tmp_path):
    """A launcher file with one place changed: `edited(FILE, ("max_workers",), 4)`."""

    def edit(path, keys, value):
        changed = copy.deepcopy(documents(path))
        place = changed[-1]
        for key in keys[:-1]:
            place = place[key]
        if value is None:
            del place[keys[-1]]
        else:
            place[keys[-1]] = value
        (tmp_path / path.name).write_text(yaml.safe_dump_all(changed))
        return tmp_path / path.name

    return edit


@pytest.mark.parametrize("path", RAY_UP + KUBECTL, ids=name_of)
def test_the_spec_of_that_name_fits_and_only_placeholders_are_left(path):
    launcher, spec = read(path), load(name_of(path))
    assert {finding.code for finding in lint_launcher(launcher, spec)} == {"placeholder"}
    assert concurrency_on(spec, launcher.machines) == spec.max_gpus


@pytest.mark.parametrize("path", RAY_UP + KUBECTL, ids=name_of)
def test_no_run_lands_on_the_head(path):
    (head,) = [kind for kind in read(path).types if kind.head]
    assert head.machine == Machine(0, 0)


def autoscaler_config(path):
    """What Ray's autoscaler makes of the file, by its own code; raises where it would."""
    if path in RAY_UP:
        from ray.autoscaler._private.util import prepare_config, validate_config

        config = prepare_config(documents(path)[0])
        validate_config(config)
        return config
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    spec = documents(path)[-1]["spec"]
    resource = {"metadata": {"name": "transkd", "namespace": "default"}, "spec": spec.get("rayClusterSpec", spec)}
    return _derive_autoscaling_config_from_ray_cr(resource)


@pytest.mark.parametrize("path", RAY_UP + KUBECTL, ids=name_of)
def test_rays_autoscaler_brings_up_a_gpu_machine_for_each_run_up_to_the_limit(path):
    from ray.autoscaler._private.node_provider_availability_tracker import NodeAvailabilitySummary
    from ray.autoscaler._private.resource_demand_scheduler import _default_utilization_scorer, get_nodes_for

    def scorer(*args):
        return _default_utilization_scorer(*args, node_availability_summary=NodeAvailabilitySummary({}))

    config, spec = autoscaler_config(path), load(name_of(path))
    kinds, head = config["available_node_types"], config["head_node_type"]
    assert kinds[head]["resources"]["CPU"] == 0
    assert all(kind.get("min_workers", 0) == 0 for name, kind in kinds.items() if name != head)

    demand = [footprint(spec)] * 3
    up, waiting = get_nodes_for(kinds, {head: 1}, head, config["max_workers"], demand, scorer)
    assert (sum(up.values()), waiting) == (3, [])

    demand = [footprint(spec)] * 20
    up, waiting = get_nodes_for(kinds, {head: 1}, head, config["max_workers"], demand, scorer)
    assert (sum(up.values()), len(waiting)) == (8, 12)


@pytest.mark.parametrize("path", RAY_UP, ids=name_of)
@pytest.mark.parametrize(
    ("available", "started"), [({}, {"gpu": 8}), ({"gpu": 0.0}, {"gpu-on-demand": 8})], ids=["spot", "no-spot"]
)
def test_rays_autoscaler_starts_spot_machines_first_and_others_while_there_are_none(path, available, started):
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil

    config = AutoscalingConfig(documents(path)[0], skip_content_hash=True)
    runs = [ResourceRequestUtil.make(footprint(load(name_of(path))))] * 20
    request = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=config.get_node_type_configs(),
        max_num_nodes=config.get_config("max_workers"),
        resource_requests=ResourceRequestUtil.group_by_count(runs),
        recoverable_resource_availabilities=available,
    )
    reply = ResourceDemandScheduler().schedule(request)
    assert {launch.instance_type: launch.count for launch in reply.to_launch} == started


AWS, KUBERAY = FOLDER / "ray-up-aws.yaml", FOLDER / "kubectl-kuberay.yaml"
WORKER = ("spec", "rayClusterSpec", "workerGroupSpecs", 0)


@pytest.mark.parametrize(
    ("path", "keys", "value", "code"),
    [
        (AWS, ("head_node_type",), "haed", "head-unknown"),
        (AWS, ("provider", "region"), None, "region-missing"),
        (AWS, ("max_workers",), 4, "limit-exceeded"),
        (AWS, ("max_workers",), 4, "limits-differ"),
        (AWS, ("available_node_types", "gpu", "resources"), {"CPU": 4, "GPU": 1}, "never-started"),
        (AWS, ("available_node_types", "gpu", "resources"), None, "resources-unstated"),
        (AWS, ("available_node_types", "gpu", "min_workers"), 1, "always-on"),
        (AWS, ("setup_commands",), ["true"], "not-mounted"),
        (KUBERAY, (*WORKER, "rayStartParams", "num-cpus"), "4", "cannot-fit"),
        (KUBERAY, (*WORKER, "maxReplicas"), 2, "limits-differ"),
        (KUBERAY, (*WORKER, "minReplicas"), 1, "always-on"),
        (KUBERAY, (*WORKER, "template", "spec", "containers", 0, "volumeMounts"), None, "not-mounted"),
        (KUBERAY, (*WORKER, "template", "spec", "containers", 0, "volumeMounts"), None, "shm-small"),
        (KUBERAY, ("spec", "rayClusterSpec", "enableInTreeAutoscaling"), None, "no-autoscaler"),
    ],
)
def test_each_mistake_in_a_launcher_has_its_code(edited, path, keys, value, code):
    findings = lint_launcher(read(edited(path, keys, value)), load(name_of(path)))
    assert code in {finding.code for finding in findings}
    assert all(finding.message and finding.remedy for finding in findings)


def test_cpus_of_a_pod_count_as_kuberay_counts_them(edited):
    path = edited(KUBERAY, (*WORKER, "rayStartParams"), {})
    assert read(path).types[1].machine == Machine(7, 1)
    limits = (*WORKER, "template", "spec", "containers", 0, "resources", "limits")
    path = edited(path, limits, {"cpu": "6500m", "nvidia.com/gpu": "1"})
    assert read(path).types[1].machine == Machine(7, 1)


@pytest.mark.parametrize("text", ["workers: 2\n", "", "kind: Pod\n", "a: [\n"])
def test_other_files_are_no_launchers(tmp_path, text):
    (tmp_path / "other.yaml").write_text(text)
    with pytest.raises(SpecError, match="launcher file"):
        read(tmp_path / "other.yaml")


def strict(schema):
    """A CRD's schema as a JSON schema that refuses unknown keys, which Kubernetes would drop in silence."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    result = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not isinstance(schema.get("type"), dict):
        result.setdefault("additionalProperties", False)
    return result


@pytest.fixture(scope="module")
def ray_job():
    """The check that KubeRay's API would make of a RayJob's spec."""
    folder = os.environ.get("TRANSKD_KUBERAY")
    if not folder:
        pytest.skip("TRANSKD_KUBERAY is not set: give the folder of KubeRay's ray.io_rayjobs.yaml")
    crd = yaml.safe_load((Path(folder) / "ray.io_rayjobs.yaml").read_text())
    (version,) = [version for version in crd["spec"]["versions"] if version["name"] == "v1"]
    schema = strict(version["schema"]["openAPIV3Schema"]["properties"]["spec"])
    return jsonschema.validators.validator_for(schema)(schema)


@pytest.mark.kuberay
def test_the_ray_job_is_what_kuberay_accepts(ray_job):
    ray_job.validate(documents(KUBERAY)[-1]["spec"])


@pytest.mark.kuberay
@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("spec", "entrypont"), "transkd"),
        (("spec", "rayClusterSpec", "enableInTreeAutoscaling"), "yes"),
        ((*WORKER, "maxReplicas"), None),
        ((*WORKER, "template", "spec", "containers", 0, "volumeMount"), []),
        ((*WORKER, "template", "spec", "containers", 0, "resources", "limits"), {"cpu": 1.5}),
    ],
)
def test_kuberays_schema_finds_mistakes(ray_job, edited, keys, value):
    with pytest.raises(jsonschema.ValidationError):
        ray_job.validate(documents(edited(KUBERAY, keys, value))[-1]["spec"])


def test_the_ray_job_mounts_its_claim_and_runs_the_installed_ray():
    claim, job = documents(KUBERAY)
    ray_cluster = job["spec"]["rayClusterSpec"]
    assert ray_cluster["rayVersion"] == importlib.metadata.version("ray")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for group in [ray_cluster["headGroupSpec"], *ray_cluster["workerGroupSpecs"]]:
        claims = [v.get("persistentVolumeClaim") for v in group["template"]["spec"]["volumes"]]
        assert {"claimName": claim["metadata"]["name"]} in claims
    assert job["spec"]["entrypoint"].endswith("--cluster kuberay")
