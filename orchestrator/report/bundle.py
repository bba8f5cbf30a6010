"""Bundle: a study in one archive, with plan, lock, ledger and report. Unpacked, it is a store for `transkd report`."""

from __future__ import annotations

import collections
import contextlib
import gzip
import hashlib
import io
import itertools
import json
import platform
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from ablations.study.schema import Study, read
from orchestrator.report.bundled_student import student_files
from orchestrator.report.files import write
from orchestrator.report.page.data import report_of
from orchestrator.state.stored_studies import BUNDLE_SUFFIX
from orchestrator.state.study_state import StudyState
from orchestrator.store.folder import Store
from orchestrator.store.journal import Reader
from orchestrator.store.ledger import Ledger
from trainer.config import UserError, masked, message_of, printable
from trainer.config.input_files import check_regular
from trainer.files.atomic import replacing

CHECKSUMS = "checksums.sha256"
STARTS = ("started", "retried")
PLUGINS = "plugins.json"
MAX_BYTES = 8_000_000_000
"""The largest content, in bytes: ten times that of a study of 10,000 runs."""
MAX_FILES = 10_000
README = """# {name}

A study of transkd in one archive. `transkd report FILE{suffix}` prints its table and writes its report again from the
ledger, the same bytes as in `report/`, on a machine without GPU, data or this study's store.

- `study.yaml`: the question, as it was asked.
- `plugins.json`: of a study with plugins, their names, digests and text; the files stand beside it.
- `plan.jsonl`: its runs, a line each: arm, seed, what the arm changes, and the whole config with its key.
- `lock.txt`: every package that was installed where this archive was made, by its version.
- `ledger.jsonl`: what happened to every run, an event a line: attempts, epochs, results, versions, hardware.
- `diffs/`: how the code differed from the commits that the ledger names.
- `runs/`: the panels that the report shows.
- `checksums.sha256`: of every other file, as `sha256sum -c` reads them. `transkd report` verifies them.
- `report/`: the table as text, Markdown, LaTeX, CSV and Parquet, and the page.
- `student/`: if it was asked for, the student of an arm's median seed, for `transkd predict` and `transkd export`.
"""


def pack(study: Study, text: str, store: Store, file: Path, student: str | None = None) -> int:
    """Write the bundle of a study, whose YAML is `text`; returns its size in bytes. Equal content gives equal bytes.

    `student`: the arm whose median student is added. Raises UserError where the store has nothing of the study, or no
    such student.
    """
    state = StudyState(study, Ledger(store.ledger))
    events = list(_events(state))
    if not events:
        raise UserError(f"{store.name} holds nothing of {study.name}; run the study first, or give its --store")
    members = {
        "README.md": README.format(name=study.name, suffix=BUNDLE_SUFFIX).encode(),
        "study.yaml": text.encode(),
        "plan.jsonl": _lines(_plan(state)),
        "lock.txt": lock().encode(),
        "ledger.jsonl": _lines(events),
    }
    for event in events:
        if name := event.get("environment", {}).get("git", {}).get("diff"):
            diff = store.root / "diffs" / f"{name}.diff"
            members |= {f"diffs/{diff.name}": _masked(diff)} if diff.is_file() else {}
    members |= _plugins(study)
    members |= student_files(state, store, student) if student is not None else {}
    report = report_of(state, store)
    members |= {str(path.relative_to(store.root)): path.read_bytes() for path in report.panels.values()}
    with tempfile.TemporaryDirectory() as folder:
        members |= {f"report/{path.name}": path.read_bytes() for path in write(report, Path(folder))}
    members[CHECKSUMS] = "".join(f"{_sha256(members[name])}  {name}\n" for name in sorted(members)).encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    # no time and no file name in the header, so that equal content gives equal archives
    with (
        replacing(file) as temporary,
        temporary.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for name, content in sorted(members.items()):
            info = tarfile.TarInfo(f"{study.name}/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.stat().st_size


@contextlib.contextmanager
def unpacked(file: Path) -> Iterator[tuple[Study, Store]]:
    """The study of a bundle, and a temporary folder with its store. Raises UserError where the file is no bundle, is
    damaged, or would write outside that folder."""
    check_regular(file)
    with tempfile.TemporaryDirectory() as folder:
        try:
            _check_size(file)
            with tarfile.open(file, "r:gz") as archive:
                held = list(itertools.islice(archive, MAX_FILES + 1))
                if len(held) > MAX_FILES:
                    raise UserError(f"{file} is not a bundle: it holds more than {MAX_FILES:,} files")
                _check_sizes(file, sum(member.size for member in held))
                archive.extractall(folder, filter="data")
        except FileNotFoundError:
            raise UserError(f"no such file: {file}") from None
        except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
            raise UserError(f"{file} is not a bundle: {message_of(error)}; `transkd bundle STUDY` writes one") from None
        found = (path.parent for path in Path(folder).glob("*/study.yaml") if path.is_file())
        roots = [root for root in found if (root / "ledger.jsonl").is_file()]
        if len(roots) != 1:
            raise UserError(f"{file} is not a bundle: it needs study.yaml and ledger.jsonl in one folder")
        _verify(roots[0], file)
        yield _study(roots[0], file), _store(roots[0], file)


def _study(folder: Path, file: Path) -> Study:
    """The study of an unpacked bundle. Its plugins are records: nothing of them is run."""
    try:
        text = (folder / "study.yaml").read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise _damaged(file, "study.yaml is no text") from None
    plugins = _recorded_plugins(folder / PLUGINS, file)
    study = read(text, f"study.yaml of {file}", recorded=True, plugins=plugins)
    if absent := sorted(set(study.plugins) - {record["name"] for record in plugins}):
        raise _damaged(file, f"{PLUGINS} lacks {', '.join(absent)}, which study.yaml names")
    return study


def _recorded_plugins(listed: Path, file: Path) -> list[dict[str, Any]]:
    """The records of a study's plugins; none of a study without. They are validated with the study."""
    try:
        plugins = json.loads(listed.read_bytes()) if listed.is_file() else []
    except (ValueError, RecursionError):
        plugins = None
    if not isinstance(plugins, list) or not all(isinstance(record, dict) for record in plugins):
        raise _damaged(file, f"{PLUGINS} is no list of records")
    return plugins


def _store(folder: Path, file: Path) -> Store:
    """The store of an unpacked bundle. Raises UserError where its ledger cannot be read."""
    store = Store(folder)
    try:
        collections.deque(Reader(store.ledger).read(), maxlen=0)
    except UserError:  # it names a temporary folder, and a remedy for stores
        raise _damaged(file, "ledger.jsonl has a line that is no event") from None
    return store


def _damaged(file: Path, what: str) -> UserError:
    return UserError(f"{file} is damaged: {what}; take another copy of it")


def _check_size(file: Path) -> None:
    """Read an archive to its end, where the checksum stands; tarfile stops before it. Raises UserError where its
    content is larger than a bundle's may be: a few bytes can hold all of a disk."""
    size = 0
    with gzip.open(file) as packed:
        while chunk := packed.read(1 << 20):
            size += len(chunk)
            _check_sizes(file, size)


def _check_sizes(file: Path, size: int) -> None:
    if size > MAX_BYTES:
        raise UserError(
            f"{file} holds more than {MAX_BYTES / 1e9:g} GB, the most that a bundle may; unpack it with tar: "
            "the folder is a store"
        )


def _verify(folder: Path, file: Path) -> None:
    """Raise UserError unless the members of a bundle are those that its checksums name, and have them. Of a bundle that
    has none, as those of earlier versions, this is said."""
    listed = folder / CHECKSUMS
    if not listed.is_file():
        said = f"{file} has no {CHECKSUMS}: an earlier version wrote it, or it was edited; its content is not verified"
        print(printable(said), file=sys.stderr)
        return
    lines = listed.read_bytes().decode(errors="replace").splitlines()
    named = {name or line: digest for line in lines for digest, _, name in [line.partition("  ")]}
    there = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file() and path != listed}
    for name in sorted(named.keys() | there.keys()):
        if name not in there or name not in named or _sha256(there[name].read_bytes()) != named[name]:
            what = "missing" if name not in there else "not listed" if name not in named else "changed"
            raise _damaged(file, f"{name} is {what}, by its {CHECKSUMS}")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def is_bundle(name: str) -> bool:
    """Whether the STUDY of a command is a bundle's file."""
    return name.endswith(BUNDLE_SUFFIX)


def lock() -> str:
    """The versions of Python and of every installed package, as `pip install -r` reads them."""
    found = {(d.metadata["Name"] or "").lower().replace("_", "-"): d.version for d in metadata.distributions()}
    listed = "".join(f"{name}=={version}\n" for name, version in sorted(found.items()) if name)
    return f"# Python {platform.python_version()}\n{listed}"


def _events(state: StudyState) -> Iterator[dict[str, Any]]:
    """The events of a study, and those of other studies about runs that it shares or counts, each after the `study`
    event that records its driver's environment."""
    name = state.study.name
    runs = {e["run_id"] for _, e in state.ledger.whole() if e.get("study") == name and "run_id" in e}
    runs |= {run.run_id for run in state.members}
    said: dict[str, Any] = {}
    for launch, event in state.ledger.whole():
        if event["event"] == "study":
            if event.get("study") == name:
                said = launch
                yield event
        elif event.get("study") == name or event.get("run_id") in runs:
            # the environment of a run is that of the driver which started it
            if event["event"] in STARTS and launch and launch is not said:
                said = launch
                yield launch
            yield event


def _masked(diff: Path) -> bytes:
    return masked(diff.read_bytes().decode(errors="replace")).encode()


def _plugins(study: Study) -> dict[str, bytes]:
    """The files of a study's plugins, and the records of all."""
    records = study.base.get("plugins", [])
    files = {record["name"]: record["source"].encode() for record in records if record["source"]}
    return {PLUGINS: json.dumps(records, indent=1).encode(), **files} if records else {}


def _plan(state: StudyState) -> Iterator[dict[str, Any]]:
    for run in (run.plan for run in state.runs):
        who = {"role": run.role, "arm": run.arm, "seed": run.seed, "key": run.key, "teacher": run.needs}
        yield {**who, "changes": run.changed, "config": run.config.model_dump(mode="json")}


def _lines(values: Iterator[dict[str, Any]] | list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values).encode()
