"""`transkd` as a user runs it: a process of its own, a store of its own, a study that trains in seconds."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.cli import app, guarded
from orchestrator.store.ledger import Ledger
from orchestrator.tracking.mlflow_server import Server
from orchestrator.tracking.tracker import Tracker
from trainer.files.run_folder import CLOCK

ROOT = Path(__file__).parents[2]
ENVIRONMENT = ("TRANSKD_STORE", "MLFLOW_TRACKING_URI", "RAY_ADDRESS")
"""What a developer may have set, and a test must not see."""

TINY = """
name: tiny
base:
  data: {name: scenes, size: [64, 128], options: {train: 16, val: 8, size: [64, 128]}}
  student: {name: segformer_tiny}
  teacher: {name: segformer_mini, train: {epochs: 2}}
  optim: {lr: 1.0e-3, epochs: 3, global_batch: 8, norm_batch: 4}
  distill: {csf: {}, pea: {}}
variants:
  student alone: {distill: {}}
  TransKD-Base: {}
  broken: {distill: {}, optim.lr: 1.0e+9}
seeds: [0, 1]
"""
"""A teacher, two arms, and one whose loss cannot stay finite, at two seeds."""


@dataclass
class Done:
    """A `transkd` that has ended."""

    code: int
    out: str
    err: str


def ended(process: subprocess.Popen[str]) -> Done:
    """What a process said, once it has ended."""
    try:
        out, err = process.communicate(timeout=540)
    finally:
        process.kill()
    return Done(process.returncode, out, err)


@dataclass
class Driver:
    """A store, and `transkd` on it; `tracking` is the address of an MLflow server instead of the store's database."""

    store: Path
    tracking: str = ""

    @property
    def env(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT}
        ours = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TRANSKD_STORE": str(self.store)}
        return {**kept, **ours} | ({"MLFLOW_TRACKING_URI": self.tracking} if self.tracking else {})

    def start(self, *words: object) -> subprocess.Popen[str]:
        """`transkd WORDS`, running."""
        return self._start("-m", "orchestrator", *words)

    def start_script(self, text: str, *words: object) -> subprocess.Popen[str]:
        """A Python program with the words as arguments, in the same surroundings, running."""
        return self._start("-c", textwrap.dedent(text), *words)

    def _start(self, *words: object) -> subprocess.Popen[str]:
        self.store.parent.mkdir(parents=True, exist_ok=True)
        pipe = subprocess.PIPE
        # From a folder that is not the checkout: nothing may depend on it.
        options = {"env": self.env, "cwd": self.store.parent, "stdout": pipe, "stderr": pipe, "text": True}
        return subprocess.Popen([sys.executable, *map(str, words)], **options)

    def __call__(self, *words: object) -> Done:
        """`transkd WORDS`, to its end."""
        return ended(self.start(*words))

    def script(self, text: str, *words: object) -> Done:
        """A Python program with the words as arguments, to its end."""
        return ended(self.start_script(text, *words))

    def here(self, *words: object) -> Done:
        """The same without Ray and in this process, which has imported what takes seconds."""
        out, err = io.StringIO(), io.StringIO()
        self.store.parent.mkdir(parents=True, exist_ok=True)
        with pytest.MonkeyPatch.context() as patch:
            for name in ENVIRONMENT:
                patch.delenv(name, raising=False)
            patch.setenv("TRANSKD_STORE", str(self.store))
            patch.setattr(sys, "argv", ["transkd", *map(str, words)])
            patch.chdir(self.store.parent)
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end:
                guarded(app)
        return Done(int(end.value.code or 0), out.getvalue(), err.getvalue())

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        """The ledger's events, of these kinds where some are named; a line being written is left out."""
        written = (event for _, event in Ledger(self.store / "ledger.jsonl").whole())
        return [event for event in written if not kinds or event["event"] in kinds]

    def epochs(self, run_id: str) -> list[dict[str, float]]:
        """The epochs in a run's folder, every number but the times."""
        path = self.store / "runs" / run_id / "epochs.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [{name: v for name, v in json.loads(line).items() if not name.startswith(CLOCK)} for line in lines]

    def numbers(self) -> dict[tuple[str, int, str], list[dict[str, float]]]:
        """(arm, seed, run id) -> the epochs, of the runs that have finished."""
        done = self.events("finished")
        return {(event["arm"], event["seed"], event["run_id"]): self.epochs(event["run_id"]) for event in done}

    def table(self, study: str = "tiny") -> str:
        """The study's table, as written into the store."""
        return (self.store / "studies" / study / "table.txt").read_text()

    def kill_when(self, process: subprocess.Popen[str], moment: Callable[[], bool]) -> None:
        """SIGKILL a driver at a moment; fail where it ends before."""
        end = time.monotonic() + 540
        while not moment():
            if process.poll() is not None or time.monotonic() > end:
                process.kill()
                pytest.fail(f"the moment did not come: {process.communicate()}")
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=240)

    def processes(self) -> dict[int, str]:
        """Living processes that a driver of this store has started, by id, with their command lines."""
        found = {}
        # Not their parents, nor their sessions: Ray's processes leave both, and keep the environment.
        mark = f"TRANSKD_STORE={self.store}\0".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (folder / "environ").read_bytes() + b"\0":
                    found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        return found

    def end(self) -> None:
        """End, by id, what a killed driver's Ray left behind."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    """Packed data and checked structures, made once for all stores that are linked to it."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def cached(cache) -> Callable[[Path], Path]:
    """cached(path): an empty store's folder, whose cache is the one for all."""

    def make(path: Path) -> Path:
        path.mkdir(parents=True)
        (path / "cache").symlink_to(cache)
        return path

    return make


@pytest.fixture(scope="session")
def begun(cached, _migrated) -> Callable[[Path], Path]:
    """begun(path): the same with MLflow's tables in it."""

    def make(path: Path) -> Path:
        shutil.copy(_migrated, cached(path) / "mlflow.db")
        return path

    return make


@pytest.fixture(autouse=True)
def _no_ray_by_itself(request) -> Iterator[None]:
    """Ray starts itself where it is asked without a connection, and would stay for all tests of this process."""
    yield
    ray = sys.modules.get("ray")
    if ray and not request.node.get_closest_marker("ray") and getattr(ray, "is_initialized", bool)():
        ray.shutdown()
        pytest.fail("this test has started Ray and is not marked so")


@pytest.fixture
def driver(tmp_path, begun) -> Iterator[Driver]:
    """`transkd` on an empty store."""
    driver = Driver(begun(tmp_path / "work" / "store"))
    yield driver
    driver.end()


@pytest.fixture
def study(tmp_path) -> Callable[..., Path]:
    """study(name, **changes): the file of the tiny study with other top-level keys; None removes one."""

    def write(name: str = "tiny", **changes: Any) -> Path:
        data = {**yaml.safe_load(TINY), **changes, "name": name}
        kept = {key: value for key, value in data.items() if value is not None}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(kept, sort_keys=False))
        return path

    return write


@pytest.fixture(scope="session")
def in_the_way() -> Callable[..., Path]:
    """in_the_way(folder, "trainer", "cluster/__init__"): the folder, with modules of these names that end an import."""

    def make(folder: Path, *modules: str) -> Path:
        for name in modules:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.py").write_text("raise SystemError('imported what stands in the way')\n")
        return folder

    return make


@dataclass
class Finished:
    """The tiny study, run once for all tests that read it."""

    driver: Driver
    done: Done
    file: Path


@pytest.fixture(scope="session")
def _finished(tmp_path_factory) -> Finished:
    """Run by the first of the processes of tests that asks for it; the others wait."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "finished"
    folder.mkdir(exist_ok=True)
    driver, file, kept = Driver(folder / "store"), folder / "tiny.yaml", folder / "done.json"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            file.write_text(TINY)
            kept.write_text(json.dumps(asdict(driver("run", file))))
    return Finished(driver, Done(**json.loads(kept.read_text())), file)


@pytest.fixture
def finished(_finished, tmp_path) -> Finished:
    """The tiny study and a copy of its store, to read or to work on."""
    shutil.copytree(_finished.driver.store, tmp_path / "copy" / "store")
    return Finished(Driver(tmp_path / "copy" / "store"), _finished.done, _finished.file)


@pytest.fixture(scope="session")
def _migrated(tmp_path_factory) -> Path:
    """An empty MLflow database, migrated once for all tests, through the door that a driver uses."""
    root = tmp_path_factory.mktemp("migrated")
    assert Tracker(Server(f"sqlite:///{root}/new/mlflow.db", root / "artifacts"), "mine").why_unreachable() == ""
    return root / "new" / "mlflow.db"


@pytest.fixture
def uri(_migrated, tmp_path, monkeypatch) -> str:
    """The address of an MLflow database of the test's own, which is empty."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(_migrated, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def client(uri) -> Any:
    """What a reader of that database uses."""
    from mlflow import MlflowClient  # seconds, which tests without tracking are spared

    return MlflowClient(tracking_uri=uri)
