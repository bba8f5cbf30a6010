"""Slips in the SkyPilot task: lint names each by its code and line, and nothing in the files as such."""

import pytest

SLIPS = [
    ("gpu", "accelerators: L4:4", "memory: 64", "cannot-fit"),
    ("gpu", "cpus: 16[+]", "cpus: 2", "cannot-fit"),
    ("gpu", "cpus: 16[+]", "cpus: 8", "gpus-starved"),
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
    *(
        ("gpu", "accelerators: L4:4", f"accelerators: {name}", "wrong-value")
        for name in ("A100_80GB:4", "nvidia-l4:4", "'RTX 4090:4'", "[H-100:8]")
    ),
    ("gpu", "accelerators: L4:4", "accelerators: {RTX-4090: 4}", "wrong-value"),
    *(("gpu", "disk_size: 256", f"disk_size: {size}", "disk-small") for size in ("30", "30.5", "50GB")),
    ("gpu", "idle_minutes: 30, down: false", "idle_minutes: 30, down: true", "store-temporary"),
    ("gpu", "accelerators: L4:4", "instance_type: m5.4xlarge", "cannot-fit"),
]


@pytest.mark.parametrize(("name", "old", "new", "expected"), SLIPS)
def test_a_slip_is_named_by_its_codes_with_the_line_and_a_remedy(check_slip, name, old, new, expected):
    check_slip(name, old, new, expected)


RIGHT = [
    ("gpu", "L4:4", "{L4: 8}"),
    ("gpu", "L4:4", "[L4:4, A10G:4]"),
    ("gpu", "idle_minutes: 30, down: false", "idle_minutes: 5, down: false"),
    (
        "gpu",
        "down: false}(.|\n)*",
        "down: true}\nsetup: x\nrun: transkd run camvid --store s3://b/s --cluster gpu\n",
    ),
    ("gpu", "L4:4", "RTXA6000:4"),
    ("gpu", "accelerators: L4:4", "instance_type: g6.12xlarge"),
    ("gpu", "accelerators: L4:4", "any_of: [{accelerators: L4:4}, {accelerators: A10G:4}]"),
    ("gpu", "L4:4", "h100:8"),
    ("gpu", "L4:4", "{A100-80GB: 8}"),
    ("gpu", "L4:4", "'tpu-v5p-8:4'"),
]


@pytest.mark.parametrize(("name", "old", "new"), RIGHT)
def test_what_is_right_is_not_named(check_right, name, old, new):
    check_right(name, old, new)
