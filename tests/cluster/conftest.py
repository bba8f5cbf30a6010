"""A real autoscaling Ray cluster on this machine, by Ray's fake multi-node provider: machines are processes here."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("ablations", "cluster", "orchestrator", "trainer")


class FakeAutoscalingCluster:
    """A head without CPUs and worker types that the autoscaler brings up and takes down; of each `most` at once.

    Drive it from a child process started with `env`: Ray keeps one cluster per process, and pytest has others to start.
    """

    def __init__(
        self, types: dict[str, dict[str, int]], free_port: Callable[[], int], *, most: int, idle_s: float
    ) -> None:
        # Not pytest's tmp_path: Ray's sockets live here, and a Unix socket's path ends at 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="ray-fake-"))
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        self.env = {
            **os.environ,
            "RAY_ADDRESS": self.address,
            "RAY_AUTH_MODE": "disabled",
            "RAY_FAKE_CLUSTER": "1",
            "RAY_enable_autoscaler_v2": "0",
            "RAY_TMPDIR": str(self.folder),
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
        }
        config = {
            "cluster_name": "fake",
            "max_workers": most * len(types),
            "idle_timeout_minutes": idle_s / 60,
            "upscaling_speed": float(most * len(types)),
            "provider": {
                "type": "fake_multinode",
                "gcs_address": self.address,
                "use_node_id_as_ip": True,  # all machines have this one's address
                "disable_node_updaters": True,  # nothing to install over ssh
                "disable_launch_config_check": True,
            },
            "head_node_type": "ray.head.default",
            "available_node_types": {
                "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
                **{
                    name: {
                        "resources": {**resources, "object_store_memory": 100 * 2**20},
                        "node_config": {},
                        "min_workers": 0,
                        "max_workers": most,
                    }
                    for name, resources in types.items()
                },
            },
        }
        (self.folder / "config.yaml").write_text(json.dumps(_with_defaults(config)))
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=0"),
            f"--object-store-memory={100 * 2**20}",
            *("--node-ip-address=127.0.0.1", f"--port={port}", f"--dashboard-port={free_port()}"),
            *(f"--ray-client-server-port={free_port()}", "--dashboard-agent-listen-port=0"),
            *(f"--temp-dir={self.folder}", f"--autoscaling-config={self.folder / 'config.yaml'}"),
        ]
        self._log = (self.folder / "head.log").open("w")
        # A session of its own, because its number finds every process of the cluster: fake machines outlive the head.
        self._head = subprocess.Popen(
            command, env=self.env, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True
        )
        self.wait_for(self._is_up, timeout_s=240, what="the head")

    def machines(self) -> int:
        """Worker machines that are up now."""
        return self.machine_sizes().total()

    def machine_sizes(self) -> Counter[tuple[float, float]]:
        """How many machines of each number of CPUs and GPUs are up now, but for the head."""
        from ray._raylet import GcsClient

        nodes = GcsClient(address=self.address).get_all_node_info().values()
        up = [node.resources_total for node in nodes if node.state == 0 and not node.is_head_node]
        return Counter((each.get("CPU", 0), each.get("GPU", 0)) for each in up)

    def wait_for(self, condition: Callable[[], bool], *, timeout_s: float, what: str) -> None:
        """Return once `condition()` holds; fail with the head's log after `timeout_s`."""
        end = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end or self._head.poll() is not None:
                pytest.fail(f"{what} not there in {timeout_s} s\n{(self.folder / 'head.log').read_text()[-3000:]}")
            time.sleep(0.5)

    def shutdown(self) -> None:
        """End the processes of this cluster, by id, and remove its folder."""
        end_session(self._head)
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _is_up(self) -> bool:
        if "Ray runtime started" not in (self.folder / "head.log").read_text():
            return False
        return self.machines() == 0


def end_session(leader: subprocess.Popen) -> None:
    """End every process of the session that `leader` began, orphans included, each by its id."""
    for sign, patience_s, again_s in ((signal.SIGTERM, 5.0, 5.0), (signal.SIGKILL, 60.0, 1.0)):
        end, sent = time.monotonic() + patience_s, float("-inf")
        while (left := _processes(leader.pid)) and time.monotonic() < end:
            if time.monotonic() - sent > again_s:  # one that ends may have started another in this moment
                sent = time.monotonic()
                for pid in left:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, sign)
            time.sleep(0.1)
    assert not _processes(leader.pid)
    leader.wait(timeout=60)


def _processes(session: int) -> list[int]:
    """Ids of the living processes of a session; zombies are not counted."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, number = stat.read_text().rpartition(")")[2].split()[:4]
            if int(number) == session and state != "Z":
                found.append(int(stat.parent.name))
    return found


@pytest.fixture
def in_a_session() -> Iterator[Callable[..., subprocess.Popen]]:
    """`subprocess.Popen`, in a session of its own that ends with the test whatever it started."""
    leaders = []

    def start(*args: Any, **options: Any) -> subprocess.Popen:
        leaders.append(subprocess.Popen(*args, start_new_session=True, **options))
        return leaders[-1]

    yield start
    for leader in leaders:
        end_session(leader)


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder for Ray's sockets, whose paths end at 107 characters: pytest's own is too deep."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def _with_defaults(config: dict[str, Any]) -> dict[str, Any]:
    """What Ray would fill in for a provider that has a defaults file; its fake one has none in the wheel."""
    empty_lists = ("setup_commands", "head_setup_commands", "worker_setup_commands", "initialization_commands")
    commands = ("head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files", "rsync_exclude")
    lists: dict[str, Any] = {key: [] for key in (*empty_lists, *commands, "rsync_filter")}
    return {**lists, "auth": {}, "docker": {}, "file_mounts": {}, "file_mounts_sync_continuously": False, **config}


@pytest.fixture
def fake_autoscaling_cluster(free_port: Callable[[], int]) -> Iterator[FakeAutoscalingCluster]:
    """0 to 2 machines of 1 CPU, taken down after 4 idle seconds. For one test: what Ray Train has asked for keeps
    machines for three minutes after a run."""
    cluster = FakeAutoscalingCluster({"machine": {"CPU": 1}}, free_port, most=2, idle_s=4)
    try:
        yield cluster
    finally:
        cluster.shutdown()


@pytest.fixture
def machines_of_three_types(free_port: Callable[[], int]) -> Iterator[FakeAutoscalingCluster]:
    """0 to 3 machines of each type, taken down after 4 idle seconds."""
    types = {"small": {"CPU": 1}, "large": {"CPU": 2}, "gpu": {"CPU": 1, "GPU": 1}}
    cluster = FakeAutoscalingCluster(types, free_port, most=3, idle_s=4)
    try:
        yield cluster
    finally:
        cluster.shutdown()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The program as a folder to submit."""
    folder = tmp_path / "checkout"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".gitignore", folder)
    return folder


@pytest.fixture
def surroundings() -> dict[str, str]:
    """Environment of head and jobs: nothing of the developer's, and no token, for the head is this test's alone."""
    hidden = ("PYTHONPATH", "TRANSKD_STORE", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "MLFLOW_TRACKING_URI")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    ours = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", "PATH": path}
    return {**kept, **ours}


@pytest.fixture
def head(
    in_a_session: Callable[..., subprocess.Popen],
    surroundings: dict[str, str],
    free_port: Callable[[], int],
    short_folder: Path,
) -> Iterator[str]:
    """The address of the dashboard of a head on ports of its own."""
    port, dashboard = free_port(), free_port()
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=1"),
        *("--node-ip-address=127.0.0.1", f"--port={port}", f"--dashboard-port={dashboard}"),
        *(f"--ray-client-server-port={free_port()}", "--dashboard-agent-listen-port=0"),
        *(f"--object-store-memory={100 * 2**20}", f"--temp-dir={short_folder}", "--include-dashboard=true"),
    ]
    with (short_folder / "head.log").open("w") as log:
        started = in_a_session(command, env=surroundings, stdout=log, stderr=subprocess.STDOUT, cwd=short_folder)
        end = time.monotonic() + 240
        while "Ray runtime started" not in (short_folder / "head.log").read_text():
            assert started.poll() is None and time.monotonic() < end, (short_folder / "head.log").read_text()
            time.sleep(0.5)
        yield f"http://127.0.0.1:{dashboard}"
