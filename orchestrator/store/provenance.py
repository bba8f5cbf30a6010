"""Provenance that a driver records in the ledger: the study's text, package versions, git commit and changes."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger
from trainer.config import NUMERICS_VERSION, Sources, digest, masked
from trainer.files.atomic import whole_json
from trainer.files.run_folder import write_text

PACKAGES = ("transkd", "torch", "torchvision", "timm", "numpy", "scipy", "ray", "optuna", "mlflow")
CODE = ("ablations", "cluster", "orchestrator", "trainer", "pyproject.toml")
"""The parts of a checkout that can change a result or a table."""
SUBMITTED, GIT_RECORD = "submitted", "git.json"
"""Where a checkout that was sent as a job, without its `.git`, says what git said of it."""
GIT_S = 30.0
"""Timeout of git, in seconds: a checkout on a network disk may be slow, and must not hold up the study."""


def begin(
    study: str,
    text: str,
    ledger: Ledger,
    store: Store,
    sources: Sources | None = None,
    plugins: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Record that a driver starts on a study; `text` is its YAML, `sources` what its runs read, `plugins` the whole
    records of its plugins. Nothing is written if the last such event of the driver's journal is equal."""
    event: dict[str, Any] = {
        "event": "study",
        "study": study,
        "text": text,
        "digest": digest(text),
        "environment": here(store),
    }
    event |= {"sources": sources.plain()} if sources else {}
    event |= {"plugins": [dict(plugin) for plugin in plugins]} if plugins else {}
    if {name: value for name, value in ledger.launch().items() if name != "time"} != event:
        ledger.append(event)


def here(store: Store) -> dict[str, Any]:
    """Versions of Python and packages, and of the code where it is a git checkout."""
    found: dict[str, Any] = {"numerics": NUMERICS_VERSION, "python": platform.python_version(), "packages": {}}
    for name in PACKAGES:
        try:
            found["packages"][name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    code = git(Path(__file__).parents[2], store.root / "diffs")
    return found | ({"git": code} if code else {})


def git(checkout: Path, diffs: Path) -> dict[str, Any]:
    """Commit of a checkout, digest of the uncommitted changes (written to `diffs`/DIGEST.diff, without passwords), and
    untracked source files. Empty where it is no checkout or git is missing."""
    if not (checkout / ".git").exists():
        return _as_sent(checkout / SUBMITTED, diffs)
    try:
        commit = _git(checkout, "rev-parse", "HEAD").strip()
        changes = masked(_git(checkout, "diff", "HEAD", "--", *CODE))
        unknown = _git(checkout, "ls-files", "--others", "--exclude-standard", "--", *CODE).splitlines()
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return {}
    code: dict[str, Any] = {"commit": commit, "dirty": bool(changes or unknown)}
    if changes:
        code["diff"] = hashlib.sha256(changes.encode()).hexdigest()[:12]
        diffs.mkdir(parents=True, exist_ok=True)
        write_text(diffs / f"{code['diff']}.diff", changes)
    return code | ({"untracked": unknown} if unknown else {})


def _as_sent(submitted: Path, diffs: Path) -> dict[str, Any]:
    """The same of a checkout that was sent as a job."""
    code = whole_json(submitted / GIT_RECORD) or {}
    diff = submitted / f"{code.get('diff')}.diff"
    if diff.is_file():
        diffs.mkdir(parents=True, exist_ok=True)
        write_text(diffs / diff.name, diff.read_bytes().decode())
    return code


def _git(checkout: Path, *words: str) -> str:
    command = ["git", "-C", str(checkout), *words]
    return subprocess.run(command, capture_output=True, check=True, timeout=GIT_S).stdout.decode()
