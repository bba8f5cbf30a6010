"""Slips in files of `ray up`: lint names each by its code and line, and nothing in the files as such."""

import pytest

DOCKER = 'docker: {image: i, container_name: c, run_options: ["--shm-size%s"]}\nhead_node_type: head'
SPOT = r"priority: 1 .*\n"

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
    ("aws", r"resources: \{CPU: 6, GPU: 1\}", "resources: {CPU: 6, GPU: 4}", "gpu-missing limits-differ spot-only"),
    ("gcp", r"resources: \{CPU: 6, GPU: 1\}", "resources: {CPU: 6, GPU: 2}", "gpu-missing limits-differ spot-only"),
    ("aws", "InstanceType: m5.xlarge", "InstanceType: m7g.xlarge", "processor-differs"),
    ("aws", "InstanceType: g5.2xlarge", "InstanceType: g5g.2xlarge", "processor-differs"),
    ("gcp", "machineType: e2-standard-4", "machineType: c4a-standard-4", "processor-differs"),
    ("aws", "ssh_user: ubuntu", "ssh_user: ec2-user", "home-differs"),
    ("gcp", "ssh_user: ubuntu", "ssh_user: me", "home-differs"),
    ("hosts", "~/transkd: .", "/home/me/transkd: .", "home-differs"),
    ("aws", "mkdir -p /home/ubuntu/data", "mkdir -p /home/ec2-user/data", "home-differs"),
    ("aws", "VolumeSize: 200", "VolumeSize: 20", "disk-small"),
    ("aws", "InstanceType: g5.2xlarge", "InstanceType: g5.48xlarge", "gpus-unused"),
    ("gcp", "machineType: g2-standard-8 ", "machineType: g2-standard-24 ", "gpus-unused"),
    ("aws", "InstanceType: g5.2xlarge", "InstanceType: g4ad.2xlarge", "gpu-missing"),
    (
        "aws",
        r"resources: \{CPU: 6, GPU: 1\}",
        "resources: {CPU: 6, gpu: 1}",
        "unknown-key gpus-unused never-started",
    ),
    ("gcp", r"resources: \{CPU: 6, GPU: 1\}", "resources: {CPU: 12, GPU: 1}", "cpus-exceed spot-only limits-differ"),
    (
        "gcp",
        "machineType: g2-standard-8 ",
        "machineType: n1-standard-8\n      guestAccelerators: [{acceleratorType: t4, acceleratorCount: 2}] ",
        "gpus-unused",
    ),
    (
        "aws",
        "s3://fill-in-bucket/transkd/data /home/ubuntu/data",
        "s3://b/data /home/me/data",
        "home-differs not-mounted",
    ),
    ("gcp", "diskSizeGb: 200", 'diskSizeGb: "40"', "disk-small"),
]


@pytest.mark.parametrize(("name", "old", "new", "expected"), SLIPS)
def test_a_slip_is_named_by_its_codes_with_the_line_and_a_remedy(check_slip, name, old, new, expected):
    check_slip(name, old, new, expected)


RIGHT = [
    ("aws", "^head_node_type: head", DOCKER % "=8g"),
    ("aws", "^head_node_type: head", DOCKER % "=2.5gb"),
    ("aws", "boto3$", "boto3 'ray>=2.9'"),
    ("aws", "boto3$", "boto3 array==1.0 xray>=99"),
    ("aws", "InstanceType: m5.xlarge", "InstanceType: m5.2xlarge"),
    ("aws", "region: us-west-2", "region: us-gov-west-1"),
    ("aws", "InstanceType: g5.2xlarge", "InstanceType: g5.8xlarge"),
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
    ("gcp", "machineType: g2-standard-8 ", "machineType: zones/us-central1-a/machineTypes/g2-standard-8 "),
    ("aws", r"resources: \{CPU: 6, GPU: 1\}", "resources: {CPU: 6.0, GPU: 1.0}"),
    ("aws", "mkdir -p /home/ubuntu/data", "sudo mkdir -p /home/shared; mkdir -p /home/ubuntu/data"),
    (
        "aws",
        "- DeviceName: /dev/sda1",
        "- {DeviceName: /dev/sdf, Ebs: {VolumeSize: 8}}\n        - DeviceName: /dev/sda1",
    ),
    ("gcp", "machineType: g2-standard-8 ", "machineType: a3-highgpu-1g "),
    ("aws", "VolumeSize: 200", "VolumeSize: 60"),
    ("aws", "/home/ubuntu/.ray/auth_token: ", "/opt/x: /home/me/x\n  /home/ubuntu/.ray/auth_token: "),
]


@pytest.mark.parametrize(("name", "old", "new"), RIGHT)
def test_what_is_right_is_not_named(check_right, name, old, new):
    check_right(name, old, new)
