"""Instance types of clouds, by their names: GPUs, CPUs and processors, held against what is asked of a machine."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cluster.launchers.launcher_file import HEAD_GIB
from cluster.lint import Finding
from cluster.machine_types import Machine

_WITH_GPU = re.compile(r"(p\d|g(?!4ad)\d|gr\d|a\dx?-|g\d-|nc|nd|nv|standard_n)", re.IGNORECASE)
"""AWS's G4ad has GPUs of AMD, for which there is no CUDA."""
_SMALL = re.compile(
    r"\.(nano|micro|small|medium)$|^[cmt]\w*\.large$|^c\w*\.xlarge$|^(e2-(micro|small|medium)|f1-|g1-small)"
)
_SIZE = re.compile(r"\.(\d*)xlarge$")
_CPUS = re.compile(r"\w+-(?:standard|highmem|highcpu)-(\d+)$")
"""Google's types, which end with their CPUs."""
_ARM = re.compile(r"[a-z]+\d+g[a-z]*\.|a1\.|p6e-gb|t2a-|c4a-|n4a-|a4x-")
"""AWS's families with a g after their number and those with Grace, and Google's T2A, C4A, N4A and A4X."""
_GPUS_OF_AWS = {
    "p3.2xlarge": 1,
    "p3.8xlarge": 4,
    "p3.16xlarge": 8,
    "p3dn.24xlarge": 8,
    "p4d.24xlarge": 8,
    "p4de.24xlarge": 8,
    "p5.4xlarge": 1,
    "p5.48xlarge": 8,
    "p5e.48xlarge": 8,
    "p5en.48xlarge": 8,
    "p6-b200.48xlarge": 8,
    "g5g.16xlarge": 2,
    "g5g.metal": 2,
    "g4dn.metal": 8,
    "gr6.4xlarge": 1,
    "gr6.8xlarge": 1,
}
"""Source: https://aws.amazon.com/ec2/instance-types, accelerated computing."""
_GPUS_OF_G = {"12xlarge": 4, "24xlarge": 4, "48xlarge": 8}
"""Of AWS's families G4dn, G5, G6 and G6e by size; smaller sizes, and 16xlarge, have one."""
_GPUS_OF_G2 = {"24": 2, "48": 4, "96": 8}
"""Of Google's G2 by CPUs; fewer CPUs have one. Source: https://cloud.google.com/compute/docs/gpus."""


def gpus_of(kind: str) -> int | None:
    """The GPUs of an instance type such as `g5.12xlarge` or `a2-highgpu-4g`; None where its name is not known here."""
    if kind in _GPUS_OF_AWS:
        return _GPUS_OF_AWS[kind]
    if found := re.fullmatch(r"g(?:4dn|5|6|6e)\.(\d*xlarge)", kind):
        return _GPUS_OF_G.get(found[1], 1)
    if found := re.fullmatch(r"a\d-\w*gpu-(\d+)g(?:-nolssd)?", kind):
        return int(found[1])
    if found := re.fullmatch(r"g2-standard-(\d+)", kind):
        return _GPUS_OF_G2.get(found[1], 1)
    return None


def has_gpus(kind: str) -> bool:
    """Whether an instance type has GPUs of its own that CUDA can use."""
    return bool(_WITH_GPU.match(kind))


def instance_findings(name: str, kind: str, machine: Machine, line: int | None, *, head: bool) -> Iterator[Finding]:
    """Problems of a cloud's instance type (`g5.2xlarge`, `a2-highgpu-1g`) for what is asked of it."""
    gpus = gpus_of(kind)
    asked = f"{machine.gpus:g} GPU{'' if machine.gpus == 1 else 's'}"
    if machine.gpus and not has_gpus(kind):
        message = f"{name} asks {asked} of {kind}, which has none for CUDA"
        yield Finding("gpu-missing", message, "choose a GPU instance", line)
    elif gpus and machine.gpus > gpus:
        message = f"{name} asks {asked} of {kind}, which has {gpus}"
        yield Finding("gpu-missing", message, f"ask for {gpus}, or choose a larger instance", line)
    elif gpus and machine.gpus < gpus and machine.cpus and not head:
        message = f"{kind} of {name} has {gpus} GPUs, which are paid for, and Ray is told of {machine.gpus:g}"
        yield Finding("gpus-unused", message, f"ask for {gpus}, or choose a smaller instance", line)
    size, number = _SIZE.search(kind), _CPUS.match(kind)
    cpus = 4 * int(size[1] or 1) if size else int(number[1]) if number else None
    if cpus and machine.cpus > cpus:
        message = f"{name} has {machine.cpus:g} CPUs in its resources but {kind} has {cpus}"
        yield Finding("cpus-exceed", message, f"set CPU: {cpus} or less", line)
    if head and _SMALL.search(kind):
        yield Finding(
            "head-small",
            f"the head is {kind}, with {HEAD_GIB} GiB of memory or less for Ray, the driver and MLflow",
            "choose a larger one",
            line,
        )


def processor_findings(kinds: dict[str, tuple[str, object, int | None]]) -> Iterator[Finding]:
    """Machine types that share an image and have other processors. `kinds`: name -> (instance type, image, line)."""
    first: dict[str, tuple[str, str]] = {}
    for name, (kind, image, line) in kinds.items():
        if image is None:
            continue
        other, others = first.setdefault(str(image), (name, kind))
        if bool(_ARM.match(kind)) != bool(_ARM.match(others)):
            words = ("ARM", "x86") if _ARM.match(kind) else ("x86", "ARM")
            message = f"{name} ({kind}) has {words[0]} processors and {other} ({others}) {words[1]}, with one image"
            yield Finding(
                "processor-differs", message, "give all machines one kind of processor, or each its own image", line
            )
