"""Hypothesis draws the same examples on every run; `pytest --hypothesis-profile=deep` draws more, and new ones."""

import contextlib
import random
import re
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

ALWAYS = {"deadline": None, "database": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("fast", derandomize=True, max_examples=25, stateful_step_count=30, **ALWAYS)
settings.register_profile("deep", max_examples=2000, stateful_step_count=60, print_blob=True, **ALWAYS)
# A mutant is to be noticed, and nobody reads its smallest example.
settings.register_profile(
    "mutation", settings.get_profile("fast"), max_examples=12, phases=[Phase.explicit, Phase.generate]
)
settings.load_profile("fast")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The walks through README and docs come first: each takes minutes, for which another process would wait."""
    items.sort(key=lambda item: item.name != "test_every_command_runs")


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """free_port() -> a port that nobody listens on. It lies below 32,768, so that no program gets it that takes any:
    what is started with it needs seconds until it listens."""
    choice = random.SystemRandom()  # processes of tests that run at once choose differently

    def find() -> int:
        while True:
            with contextlib.suppress(OSError), socket.socket() as server:
                server.bind(("127.0.0.1", choice.randrange(30_000, 32_768)))
                return int(server.getsockname()[1])

    return find


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Path]:
    """A folder with the files of docs/plugins.md: a study, a plugin of each kind. Plugins are forgotten afterwards."""
    page = (Path(__file__).parents[1] / "docs" / "plugins.md").read_text(encoding="utf-8")
    folder = tmp_path / "own"
    folder.mkdir()
    for text in re.findall(r"```(?:python|yaml)\n(# \S+\n.*?)```", page, re.S):
        (folder / text.split()[1]).write_text(text, encoding="utf-8")
    yield folder
    if "trainer.plugins.load" in sys.modules:
        sys.modules["trainer.plugins.load"].activate([])


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """install({"my_kd.py": "..."}, "gap = my_kd:Gap") -> a folder on sys.path with a package and its metadata.

    `points` are lines below a group, or a whole entry_points.txt; `record` lists all files, as pip does of
    a package that is not editable. What was imported of it is forgotten afterwards.
    """
    sites, modules = tmp_path / "sites", set[str]()

    def make(
        files: Mapping[str, str],
        points: str | bytes,
        group: str = "distillers",
        *,
        name: str = "my-kd",
        metadata: str = "Name: {name}\nVersion: 1.2\n",
        record: bool = False,
    ) -> Path:
        site = sites / str(len(list(sites.glob("*"))))
        info = f"{name.replace('-', '_')}-1.2.dist-info"
        declared = points if isinstance(points, bytes) else f"[transkd.{group}]\n{points}\n".encode()
        whole = {**files, f"{info}/METADATA": metadata.format(name=name)}
        if record:
            whole[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in (*whole, "../../bin/my-kd"))
        modules.update(file.partition("/")[0].removesuffix(".py") for file in files)
        for file, text in whole.items():
            (site / file).parent.mkdir(parents=True, exist_ok=True)
            (site / file).write_text(text, encoding="utf-8")
        (site / info / "entry_points.txt").write_bytes(declared)
        monkeypatch.syspath_prepend(str(site))
        return site

    yield make
    for module in [name for name in sys.modules if name.partition(".")[0] in modules]:
        del sys.modules[module]
