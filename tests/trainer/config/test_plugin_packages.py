"""Packages with entry points: their names, the keys of runs that use them, and what cannot be read of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainer.config import UserError, installed, parse, with_plugins
from trainer.config.plugin_packages import home
from trainer.config.plugin_sources import resolve
from trainer.distill import DISTILLERS
from trainer.plugins.load import activate, add

Install = Callable[..., Path]
GAP = "from trainer.distill.fitnet import FitNetHints as Gap\n"
FILES = {"my_kd/__init__.py": GAP, "my_kd/more/helper.py": ""}


def config(folder: Path, **sections: Any) -> Any:
    teacher = {"teacher": {"name": "segformer_tiny", "train": {"epochs": 1}}}
    return parse(with_plugins({**teacher, **sections}, folder))


def key(folder: Path) -> str:
    return str(config(folder, distill={"gap": {}}).key)


@pytest.fixture
def again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """The key of a run that uses `gap`, packages looked up anew: they are looked up once for each sys.path."""

    def look() -> str:
        monkeypatch.syspath_prepend(str(tmp_path))
        return key(tmp_path)

    return look


def test_a_package_with_entry_points_needs_no_line_in_a_study(install: Install, tmp_path: Path) -> None:
    install(FILES, "gap = my_kd:Gap")
    (used,) = config(tmp_path, distill={"gap": {}}).used_plugins
    assert (used.name, used.entries, used.source) == ("my-kd 1.2", {"DISTILLERS": ("gap",)}, "")
    assert config(tmp_path, distill={"csf": {}}).used_plugins == ()


@pytest.mark.parametrize(
    ("files", "changed", "record"),
    [
        (FILES, "my_kd/__init__.py", False),
        (FILES, "my_kd/more/helper.py", False),
        (FILES, "my_kd/more/helper.py", True),
        ({"my_kd.py": GAP}, "my_kd.py", False),
        ({"my_kd.py": GAP, "my_core/a.py": ""}, "my_core/a.py", True),
        ({"my_kd.py": GAP, "my_core/__init__.py": "", "i/top_level.txt": ""}, "my_core/__init__.py", False),
        ({"my_kd/__init__.py": GAP, "my_kd/table.csv": "1"}, "my_kd/table.csv", True),
        (
            {"my_kd.py": GAP, "i/RECORD": "__editable__.my_kd.pth,,\n__editable___my_kd_finder.py,,\n"},
            "my_kd.py",
            False,
        ),
    ],
)
def test_every_file_of_a_package_enters_the_key(
    files: dict[str, str], changed: str, record: bool, install: Install, again: Callable[[], str]
) -> None:
    named = {file.replace("i/", "my_kd-1.2.dist-info/"): text or "my_core my_kd\n" for file, text in files.items()}
    site = install(named, "gap = my_kd:Gap", record=record)
    before = again()
    assert again() == before
    (site / "my_kd-1.2.dist-info" / "INSTALLER").write_text("pip")
    (site / "my_kd" / "__pycache__").mkdir(parents=True, exist_ok=True)
    (site / "my_kd" / "__pycache__" / "a.pyc").write_text("")
    assert again() == before
    with (site / changed).open("a") as file:
        file.write("# changed\n")
    assert again() != before


def test_what_an_entry_point_names_enters_the_key(install: Install, again: Callable[[], str]) -> None:
    site = install({"my_kd.py": f"{GAP}Other = Gap\n"}, "gap = my_kd:Gap")
    before = again()
    (site / "my_kd-1.2.dist-info" / "entry_points.txt").write_text("[transkd.distillers]\ngap = my_kd:Other\n")
    assert again() != before


def test_of_a_namespace_only_the_packages_own_part_enters_the_key(install: Install, again: Callable[[], str]) -> None:
    other = install({"corp/other.py": ""}, "", name="other")
    site = install({"corp/kd/losses.py": GAP, "corp/kd/core.py": ""}, "gap = corp.kd.losses:Gap")
    before = again()
    (other / "corp" / "other.py").write_text("changed = 1\n")
    assert again() == before
    (site / "corp" / "kd" / "core.py").write_text("changed = 1\n")
    assert again() != before
    assert home("corp.kd.losses") == "corp.kd.losses"
    install({"firm/kd/__init__.py": "", "firm/kd/a.py": "", "my_kd/a.py": "", "my_kd/__init__.py": ""}, "")
    assert (home("firm.kd.a"), home("my_kd.a")) == ("firm.kd", "my_kd")


@pytest.mark.parametrize(
    ("points", "metadata", "message"),
    [
        (
            "gap = my_kd:Gap",
            "Name: {name}\n",
            "package my-kd declares entry points of transkd, but its metadata has no ve",
        ),
        (
            "gap = my_kd:Gap",
            "",
            "declares entry points of transkd, but its metadata has no name that can be read; reinst",
        ),
        ("gap = my_kd:Gap", "Name: my kd\nVersion: 1\n", "its metadata has no name that can be read; reinstall it"),
        (
            "gap = my_kd:Gap",
            "Name: {name}\nVersion: 1\n x\n",
            "package my-kd 1 x: name: a name must be one line of pri",
        ),
        (
            "gap = my-kd:Gap",
            "",
            "'gap' must be a module and what is in it, my_package.losses:MyClass, but got 'my-kd:Gap'",
        ),
        (
            "gap = my_kd",
            "",
            "'gap' must be a module and what is in it, my_package.losses:MyClass, but got 'my_kd'; correct",
        ),
        (
            "gap = .my_kd:Gap",
            "",
            "'gap' must be a module and what is in it, my_package.losses:MyClass, but got '.my_kd:Gap'",
        ),
        (
            "gap =",
            "",
            "'gap' must be a module and what is in it, my_package.losses:MyClass, but got ''; correct the package",
        ),
        (
            "gap",
            "",
            "package my-kd 1.2: its entry_points.txt cannot be read, and needs lines NAME = MODULE:CLASS; reinst",
        ),
        (
            b"[transkd.models]\ngap = my_kd:\xff\n",
            "",
            "package my-kd 1.2: its entry_points.txt cannot be read, and needs",
        ),
        (
            "gap = my_kd:Gap\ngap = my_kd:A",
            "",
            "transkd.distillers: the name 'gap' is declared twice; correct the package",
        ),
        (
            "My.Gap = my_kd:Gap",
            "",
            "package my-kd 1.2: transkd.distillers: a name has small letters, digits and undersc",
        ),
        (
            "gap = away_kd:Gap",
            "",
            "package my-kd 1.2 declares entry points in away_kd, which is not installed; reinstall",
        ),
        (
            "gap = sys:Gap",
            "",
            "declares entry points in sys, whose files cannot be read: it is a part of Python, or in an",
        ),
    ],
)
def test_what_cannot_be_read_of_a_package_is_one_line(
    points: str | bytes, metadata: str, message: str, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = metadata or ("" if "has no name" in message else "Name: {name}\nVersion: 1.2\n")
    install(FILES, points, metadata=whole)
    with pytest.raises(UserError, match=re.escape(message)) as refused:
        installed()
    assert "\n" not in str(refused.value)


def test_metadata_of_other_projects_stops_nothing(install: Install) -> None:
    install({}, b"[console_scripts]\nno value\n", name="theirs")
    install({}, b"[console_scripts]\nx = \xff\n", name="others", metadata="")
    assert installed() == ()


def test_a_file_and_a_package_may_not_define_one_name(install: Install, tmp_path: Path) -> None:
    install(FILES, "gap = my_kd:Gap")
    (tmp_path / "gap.py").write_text("DISTILLERS = {'gap': None}\n")
    with pytest.raises(UserError, match=r"the distiller 'gap' is defined twice, in gap.py and in my-kd 1.2; rename"):
        resolve(["gap.py"], tmp_path)


def test_two_packages_with_one_name_stop_only_the_runs_that_use_it(install: Install, tmp_path: Path) -> None:
    install(FILES, "gap = my_kd:Gap")
    install({"other_kd.py": GAP}, "gap = other_kd:Gap\nmore = other_kd:Gap", name="other-kd")
    add(config(tmp_path, distill={"more": {}}).used_plugins)
    with pytest.raises(
        UserError, match=r"'gap' is defined twice, in my-kd 1.2 and in other-kd 1.2; uninstall one of the two packages"
    ):
        add(config(tmp_path, distill={"gap": {}}).used_plugins)
    activate([])


def test_an_entry_point_is_loaded_when_a_run_needs_it(install: Install, tmp_path: Path, own: Path) -> None:
    install(FILES, "gap = my_kd:Gap")
    (used,) = config(tmp_path, distill={"gap": {}}).used_plugins
    add([used])
    assert DISTILLERS["gap"] is DISTILLERS["fitnet"]
    other = used.model_copy(update={"name": "my-kd 1.3", "sha256": "0" * 64})
    with pytest.raises(UserError, match=r"plugin my-kd 1.3 is meant, but my-kd 1.2 with other content is installed"):
        add([other])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"losses.py": "\nimport away_kd\n"},
            ", line 2 of losses.py: No module named 'away_kd'; install what it imports",
        ),
        (
            {"losses.py": "from my_kd.more import x\n", "more.py": ""},
            ", line 1 of losses.py: cannot import name 'x' from",
        ),
        (
            {"losses.py": "from my_kd.more import x\n", "more.py": "\nx = (\n"},
            ", line 2 of more.py: SyntaxError: '(' was",
        ),
        (
            {"losses.py": "from my_kd.more import x\n", "more.py": "x = 1 / 0\n"},
            ", line 1 of more.py: ZeroDivisionError: d",
        ),
        ({"losses.py": "raise SystemExit(3)\n"}, ", line 1 of losses.py: SystemExit: 3; correct the package"),
        ({"losses.py": ""}, ": AttributeError: module 'my_kd.losses' has no attribute 'Gap'; correct the package"),
        ({}, ": No module named 'my_kd.losses'; install what it imports, or correct the package"),
    ],
)
def test_an_entry_point_that_cannot_be_loaded_is_told_with_file_and_line(
    files: dict[str, str], message: str, install: Install, tmp_path: Path
) -> None:
    install(
        {"my_kd/__init__.py": "", **{f"my_kd/{name}": text for name, text in files.items()}}, "gap = my_kd.losses:Gap"
    )
    said = f"plugin my-kd 1.2: the distiller 'gap' cannot be loaded from my_kd.losses:Gap{message}"
    with pytest.raises(UserError, match=re.escape(said)) as refused:
        add(config(tmp_path, distill={"gap": {}}).used_plugins)
    assert "\n" not in str(refused.value)
    assert "one file" not in str(refused.value)
