"""Read a cluster spec: the YAML file of `--cluster`, a bundled one by its name, or one with other `--workers`."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from cluster.mistakes import hint, lines
from cluster.spec import ClusterSpec, SpecError
from cluster.workers import workers_of
from trainer.config import UserError, read_yaml, shown
from trainer.config.input_files import with_home

_LAUNCHER_KEYS = {"apiVersion": "kubectl apply -f", "cluster_name": "ray up", "run": "sky launch"}
LAUNCHERS = ("ray-up-", "kubectl-", "sky-")
"""What the names of launcher files begin with; the name of the spec that goes with one follows."""


def names() -> list[str]:
    """Names of the bundled specs, `local` for `cluster/local.yaml`; launcher files are excluded by their prefix."""
    files = Path(__file__).parent.glob("*.yaml")
    return sorted(path.stem for path in files if not path.name.startswith(LAUNCHERS))


def load(source: str | Path | None = None) -> ClusterSpec:
    """The spec of a YAML file, or a bundled spec by its name (`gpu`); None is `local`.

    Raises SpecError: one line with the file, the key, the rule and the value.
    """
    path = _locate("local" if source is None else source)
    try:
        data = read_yaml(path)
    except UserError as error:
        raise SpecError(str(error)) from None
    data = {} if data is None else data
    if not isinstance(data, dict):
        raise SpecError(f"{path}: expected `key: value` lines (workers, cpus_per_worker, ...), but got {shown(data)}")
    if studied := data.keys() & {"base", "variants", "factors"}:
        raise SpecError(
            f"{path} has {min(studied)} and is a study, not a cluster spec; give one of: {', '.join(names())}, or a "
            "file"
        )
    for key, command in _LAUNCHER_KEYS.items():
        if key in data:
            raise SpecError(
                f"{path} is for `{command}`, not a cluster spec; give one of: {', '.join(names())}, or a file"
            )
    try:
        return ClusterSpec.model_validate(data)
    except ValidationError as error:
        raise SpecError(f"{path}: {'; '.join(lines(error, ClusterSpec.model_fields))}") from None


def with_workers(spec: ClusterSpec, text: str) -> ClusterSpec:
    """The spec with the workers of `--workers`, such as `2` or `1-4`. Raises SpecError when the spec forbids them."""
    try:
        return ClusterSpec.model_validate({**spec.model_dump(), "workers": workers_of(text)})
    except ValidationError as error:
        wrong = "; ".join(lines(error, ClusterSpec.model_fields)).replace("the whole file: ", "")
        raise SpecError(f"--workers {text}: {wrong}") from None


def _locate(source: str | Path) -> Path:
    path = Path(with_home(str(source)))
    if path.exists() and not path.is_dir():  # what is no file is refused where it is read
        return path
    if path.suffix or len(path.parts) > 1:
        raise SpecError(f"no such cluster spec: {path}; those that come with the project: {', '.join(names())}")
    if str(path) not in names():
        raise SpecError(f"unknown cluster spec '{path}'; {hint(str(path), names())}")
    return Path(__file__).parent / f"{path}.yaml"
