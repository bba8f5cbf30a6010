"""Package: what a job needs of this checkout, in a folder: the files that git tracks, the study with its plugins, the
cluster spec, and which commit it is. Data and weights are never sent."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from ablations.study.schema import Study, load, packaged
from cluster.spec_file import load as load_spec
from cluster.spec_file import names as packaged_specs
from orchestrator.store.provenance import GIT_RECORD, GIT_S, SUBMITTED, git
from trainer.config import UserError, counted, message_of
from trainer.files.run_folder import write_text

MOST_BYTES = 95 * 2**20
"""Ray's dashboard takes 100 MiB (`DASHBOARD_CLIENT_MAX_SIZE`)."""
IGNORE = (".gitignore", ".rayignore")
"""Files that Ray obeys: it would leave out what git tracks, or the study."""
GRID = "ablations/grid.py"
"""What a job runs."""
REMEDY = "clone the repository, or use `ray job submit`"
NAMED = 3
"""At most so many files are named."""


class Package(NamedTuple):
    """A folder to send, how its study and cluster spec are named in it, and what a person should know of it."""

    folder: Path
    study: Study
    words: tuple[str, ...]
    """STUDY and `--cluster SPEC`, as the job's command line has them."""
    about: list[str]


def pack(checkout: Path, study: str, cluster: str | None, folder: Path) -> Package:
    """Copy into `folder` what a job needs. Raises UserError where the checkout is none of git, or the study or the spec
    is wrong."""
    loaded = load(study)
    load_spec(cluster)
    tracked, unknown, links = _files(checkout)
    for name in tracked:
        if Path(name).name not in IGNORE:
            _copy(checkout / name, folder / name)
    words, own = [study], folder / SUBMITTED
    if Path(study).is_file() or study not in packaged():
        words = [f"{SUBMITTED}/{Path(study).name}"]
        for name in (Path(study).name, *loaded.plugins):
            if (file := Path(study).parent / name).is_file():
                _copy(file, own / name)
    if cluster is not None and (Path(cluster).is_file() or cluster not in packaged_specs()):
        _copy(Path(cluster), own / "spec" / Path(cluster).name)
        words += ["--cluster", f"{SUBMITTED}/spec/{Path(cluster).name}"]
    elif cluster is not None:
        words += ["--cluster", cluster]
    own.mkdir(exist_ok=True)
    code = git(checkout, own)
    write_text(own / GIT_RECORD, json.dumps(code) + "\n")
    about = [_size(folder)]
    if not code:
        about.append(f"no commit is recorded: {checkout} is not the root of a repository")
    if links:
        about.append(f"not sent: {counted(len(links), 'link or submodule')} of git ({', '.join(links[:NAMED])})")
    if unknown:
        first = ", ".join(unknown[:NAMED])
        about.append(f"not sent: {counted(len(unknown), 'file')} that git does not track ({first}); `git add` them")
    if installed := [name for name in loaded.plugins if not (own / name).is_file()]:
        about.append(f"not sent: {', '.join(installed)}; install it on the cluster's machines")
    return Package(folder, loaded, tuple(words), about)


def _copy(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(file, target)


def _files(checkout: Path) -> tuple[list[str], list[str], list[str]]:
    """The regular files that git tracks, the files that it neither tracks nor ignores, and what it tracks that is no
    regular file."""
    try:
        tracked = _git(checkout, "ls-files", "-z")
        unknown = _git(checkout, "ls-files", "-z", "--others", "--exclude-standard")
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"a job is made of a checkout, and git says of {checkout}: {_why(error)}; {REMEDY}") from None
    if GRID not in tracked:
        raise UserError(f"a job is made of a checkout, and git tracks no {GRID} in {checkout}; {REMEDY}")
    there = [name for name in tracked if (checkout / name).is_file() and not (checkout / name).is_symlink()]
    links = [name for name in tracked if (checkout / name).is_symlink() or (checkout / name).is_dir()]
    return there, unknown, links


def _git(checkout: Path, *words: str) -> list[str]:
    command = ["git", "-C", str(checkout), *words]
    said = subprocess.run(command, capture_output=True, check=True, timeout=GIT_S).stdout.decode(
        errors="surrogateescape"
    )
    return [name for name in said.split("\0") if name]


def _why(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return error.stderr.decode(errors="replace").strip().removeprefix("fatal: ")
    return message_of(error)


def _size(folder: Path) -> str:
    """The size of the package and its largest files. Raises UserError where Ray would refuse it."""
    sizes = sorted(((path.stat().st_size, path) for path in folder.rglob("*") if path.is_file()), reverse=True)
    whole = sum(size for size, _ in sizes)
    largest = ", ".join(f"{path.relative_to(folder)} {_mib(size)}" for size, path in sizes[:NAMED])
    if whole > MOST_BYTES:
        raise UserError(
            f"the package must have at most {_mib(MOST_BYTES)} but has {_mib(whole)}, the largest {largest}; keep data "
            "and weights out of git, on a disk that the machines mount"
        )
    return f"{counted(len(sizes), 'file')}, {_mib(whole)}; the largest: {largest}"


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
