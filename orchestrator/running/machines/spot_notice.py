"""Spot notices: when AWS or Google Cloud take back the machine of this process, by their metadata service."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

TIMEOUT_S = 2.0
VENDOR = Path("/sys/class/dmi/id/sys_vendor")
GOOGLE_S = 30.0
"""Google Cloud ends a machine so many seconds after its notice."""
AT_AWS, AT_GOOGLE = "AWS_EC2_METADATA_SERVICE_ENDPOINT", "GCE_METADATA_HOST"
"""Variables of the clouds' own tools: the service's address, where it is another one."""


def cloud() -> Callable[[], float | None]:
    """What asks the metadata service of this machine: in how many seconds the cloud takes the machine back, None where
    it has not said so. It raises OSError where nothing answers. On other machines it always returns None."""
    vendor = VENDOR.read_text(encoding="utf-8", errors="replace") if VENDOR.is_file() else ""
    if AT_AWS in os.environ or "Amazon" in vendor:
        at = os.environ.get(AT_AWS, "http://169.254.169.254").rstrip("/")
        return lambda: aws_notice(at)
    if AT_GOOGLE in os.environ or "Google" in vendor:
        host = os.environ.get(AT_GOOGLE, "metadata.google.internal")
        return lambda: google_notice(f"http://{host}")
    return lambda: None


def aws_notice(at: str) -> float | None:
    """Seconds until AWS stops or ends this machine; None where it will not. Raises OSError."""
    token = _ask(f"{at}/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, "PUT")
    try:
        notice = _ask(f"{at}/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token})
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise
    end = datetime.fromisoformat(json.loads(notice)["time"])
    return max(0.0, (end - datetime.now(UTC)).total_seconds())


def google_notice(at: str) -> float | None:
    """Seconds until Google Cloud ends this machine; None where it will not. Raises OSError."""
    said = _ask(f"{at}/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"})
    return GOOGLE_S if said.strip() == "TRUE" else None


def _ask(url: str, headers: dict[str, str], method: str = "GET") -> str:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy has a metadata service of its own
    request = urllib.request.Request(url, headers=headers, method=method)
    with direct.open(request, timeout=TIMEOUT_S) as answer:
        return str(answer.read(10_000).decode())
