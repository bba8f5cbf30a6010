"""The schemas of launcher files: Ray's own for `ray up`, KubeRay's of its custom resource. Both refuse unknown keys.

`kuberay-rayjob.json.gz` is the spec of RayJob v1 from ray-project/kuberay (Apache-2.0), without its descriptions.
"""

from __future__ import annotations

import contextlib
import copy
import gzip
import io
import json
import logging
from functools import cache
from pathlib import Path
from typing import Any

from cluster.launchers.launcher_file import Document
from cluster.lint import Finding
from cluster.mistakes import hint
from trainer.config import message_of, require

_OPEN = ("provider", "auth", "docker", "node_config", "metadata")
"""Sections of a `ray up` file whose keys depend on the cloud."""


def check_kuberay(document: Document, *, job: bool) -> list[Finding]:
    """What KubeRay's API would refuse or drop in silence in the `spec` of a RayJob or RayCluster."""
    schema = _kuberay_schema()
    return _check(document, schema if job else schema["properties"]["rayClusterSpec"], "spec")


def check_ray_up(document: Document) -> list[Finding]:
    """What Ray's schema and its validator refuse in a `ray up` file. Raises UserError where Ray is not installed."""
    require("checking a `ray up` file", "ray")
    import ray.autoscaler
    from ray.autoscaler._private.util import prepare_config, validate_config

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text(encoding="utf-8"))
    if found := _check(document, _strict(schema)):
        return found
    logging.getLogger("ray.autoscaler").setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            validate_config(prepare_config(copy.deepcopy(document.data)))
    except Exception as error:  # of any class: it is meant for a program
        return [Finding("refused-by-ray", message_of(error)[:300], "correct it: `ray up` stops here", document.line())]
    return []


@cache
def _kuberay_schema() -> dict[str, Any]:
    packed = (Path(__file__).parent / "kuberay-rayjob.json.gz").read_bytes()
    return _strict(json.loads(gzip.decompress(packed)))


def _strict(schema: Any, name: str = "") -> Any:
    """A schema that refuses unknown keys wherever it names some."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    result = {key: _strict(value, key) for key, value in schema.items()}
    is_object = isinstance(schema.get("properties"), dict) and not isinstance(schema.get("type"), dict)
    if is_object and name not in _OPEN and not schema.get("x-kubernetes-preserve-unknown-fields"):
        result["additionalProperties"] = False
    if schema.get("nullable"):
        result["type"] = [schema["type"], "null"]
    return result


def _check(document: Document, schema: dict[str, Any], *below: str) -> list[Finding]:
    import jsonschema

    data = document.data
    for key in below:
        data = data.get(key) if isinstance(data, dict) else None
    found = []
    for error in jsonschema.validators.validator_for(schema)(schema).iter_errors(data):
        keys = (*below, *error.absolute_path)
        place = ".".join(map(str, keys)) or "the file"
        if error.validator == "additionalProperties" and isinstance(error.instance, dict):
            known = error.schema.get("properties", {})
            for key in error.instance:
                if key not in known:
                    line = document.line(*keys, key)
                    found.append(Finding("unknown-key", f"{place} has no key {key!r}", hint(str(key), known), line))
        elif error.validator == "required":
            lacking = [key for key in error.validator_value if key not in error.instance]
            message = f"{place} lacks {', '.join(lacking)}"
            found.append(Finding("missing-key", message, "add it", document.line(*keys)))
        else:
            message = f"{place}: {' '.join(error.message.split())[:200]}"
            found.append(Finding("wrong-value", message, "correct it", document.line(*keys)))
    return found
