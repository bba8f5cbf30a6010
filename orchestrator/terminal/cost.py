"""The lines that `transkd plan` prints of an estimate."""

from __future__ import annotations

from collections.abc import Callable

from cluster.spec import ClusterSpec
from orchestrator.prepare.cohort_costs import in_words
from orchestrator.prepare.estimate import Estimate
from orchestrator.prepare.machine_hours import machine_hours, types_of
from orchestrator.prepare.work_left import Range
from trainer.config import counted


def estimate_lines(estimate: Estimate, spec: ClusterSpec) -> list[str]:
    """First time, disk space and money; then where the figures come from, or why one is missing."""
    if not estimate.count:
        return ["estimate: nothing is left to run"]
    parts, specs = [], [share.spec for share in estimate.shares] or [spec]
    if estimate.hours:
        at_once = "" if estimate.slots == 1 else f", {estimate.slots} runs at once"
        parts.append(f"{_ranged(estimate.hours, _duration)}{at_once}")
    if estimate.device_hours:
        device = "GPU" if any(share.spec.gpus_per_worker for share in estimate.shares) else "CPU"
        parts.append(f"{_ranged(estimate.device_hours, _number)} {device}-hours")
        if spec.price_per_gpu_hour:
            price = estimate.device_hours.times(spec.price_per_gpu_hour)
            parts.append(f"{_ranged(price, _number)} at {spec.price_per_gpu_hour:g} a GPU-hour")
    if estimate.gigabytes:
        parts.append(f"{_ranged(estimate.gigabytes, _number)} GB on disk")
    lines = [f"estimate: {'; '.join(parts)}"] if parts else []
    lines += machine_lines(estimate, spec)
    if together := in_words(estimate.cohorts):
        lines.append(f" {together}")
    elif any(each.most_workers > 1 for each in specs) and spec.cohort != "off":
        lines.append(" each run alone: cohorts (one teacher pass for several runs) are of runs with one worker")
    ranges = {each.least_workers: each.most_workers for each in specs if each.least_workers < each.most_workers}
    for least, most in ranges.items():
        whose = "a run" if len(specs) == 1 else "each run that may have more"
        lines.append(
            f" with {counted(least, 'worker')} {whose}; up to {most} train a run where they have room, which ends it "
            "sooner"
        )
    if estimate.why:
        lines.append(f"no estimate of {'hours' if estimate.device_hours else 'time'}: {estimate.why}")
    if estimate.origins and estimate.device_hours:
        lines.append(f" by {', and '.join(estimate.origins)}")
    return lines


def machine_lines(estimate: Estimate, spec: ClusterSpec) -> list[str]:
    """A line for each machine type that an autoscaler starts: machines, hours and money."""
    lines, types = [], types_of(spec)
    for name, need in machine_hours(estimate.shares, types).items():
        line = f" {name}: {counted(need.machines, 'machine')} at most, {_ranged(need.hours, _number)} machine-hours"
        if need.price is not None:
            line += f"; {_ranged(need.price, _number)} at {types[name].price_per_hour:g} an hour"
        lines.append(line)
    return lines


def _ranged(value: Range, words: Callable[[float], str]) -> str:
    """`2.1 h`, `2.1 h (1.3 h to 4 h)`, or `1.3 h to 4 h` where the upper bound is the likely value."""
    least, likely, most = map(words, value)
    if least == most:
        return likely
    return f"{least} to {most}" if likely == most else f"{likely} ({least} to {most})"


def _duration(hours: float) -> str:
    if hours < 2.5 / 60:
        return f"{hours * 3600:.0f} s"
    if hours < 2.5:
        return f"{hours * 60:.0f} min"
    return f"{_number(hours)} h" if hours < 48 else f"{_number(hours / 24)} days"


def _number(value: float) -> str:
    """Two significant digits; from 10 on a whole number."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
