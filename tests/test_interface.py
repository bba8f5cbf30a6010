"""The interface for Python: its names and signatures, which must not change unnoticed, its types, and what it costs."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import ablations
import orchestrator
import trainer
from orchestrator.results import Results

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
SIGNATURES = {
    "trainer.fit": "(config: 'TrainConfig', place: 'Place', *, report: 'Report' = <default>) -> 'dict[str, Any]'",
    "ablations.load": "(name: 'str | Path') -> 'Study'",
    "orchestrator.run": (
        "(study: 'Study | str | Path', *, store: 'str | Path | None' = None, cluster: 'str | None' = None, "
        "data_root: 'str | Path | None' = None, workers: 'int | str | None' = None, retry_failed: 'bool' = False) "
        "-> 'Results'"
    ),
    "orchestrator.report": (
        "(study: 'Study | str | Path', *, store: 'str | Path | None' = None, cluster: 'str | None' = None) -> 'Results'"
    ),
    "orchestrator.judge": (
        "(scores: 'DataFrame | Mapping[str, Sequence[Any]] | str | Path', *, arm: 'str | None' = None, "
        "seed: 'str | None' = None, metric: 'str | None' = None, reference: 'str | None' = None, "
        "contrasts: 'Sequence[tuple[str, str]]' = (), minimise: 'bool | None' = None, margin: 'float | None' = None, "
        "unpaired: 'bool' = False, name: 'str' = 'scores') -> 'Results'"
    ),
}
"""A changed line here is a changed interface: say so in CHANGELOG.md."""
FIELDS = {
    "trainer.Place": [
        *("out_dir", "data_root", "cache_dir", "device", "threads", "micro_batch", "teacher", "checkpoint_every"),
        *("compile", "deterministic"),
    ],
    "trainer.TrainConfig": ["student", "data", "teacher", "distill", "loss", "optim", "eval", "seed", "plugins"],
    "ablations.Study": [
        *("name", "plugins", "base", "variants", "factors", "search", "leave_one_out", "tune_each", "limits"),
        *("requires", "excludes", "seeds", "looks", "reference", "contrasts", "margin", "metric", "published"),
    ],
}
"""Fields that must stay; new ones may be added."""
RESULTS = ["effects", "explained", "runs", "table", "write"]


def named(path):
    package, _, name = path.partition(".")
    return getattr({"ablations": ablations, "orchestrator": orchestrator, "trainer": trainer}[package], name)


@pytest.mark.parametrize("path", SIGNATURES)
def test_a_signature_stays(path):
    signature = inspect.signature(named(path))
    report = signature.parameters.get("report")
    found = str(signature)
    if report is not None:  # a function, whose address is in its text
        found = found.replace(str(report.default), "<default>")
    assert found == SIGNATURES[path]


@pytest.mark.parametrize("path", FIELDS)
def test_fields_stay(path):
    fields = getattr(named(path), "model_fields", None) or named(path).__dataclass_fields__
    assert [name for name in FIELDS[path] if name not in fields] == []


def test_the_names_are_those_of_the_packages_and_of_the_page():
    public = {
        f"{package.__name__}.{name}" for package in (trainer, ablations, orchestrator) for name in package.__all__
    }
    assert public == {*SIGNATURES, *FIELDS, "trainer.UserError"}
    assert [name for name in public if f"`{name}" not in PAGE] == []
    attributes = [name for name in dir(Results) if not name.startswith("_")]
    assert sorted(set(attributes) - {"shown", "rows", "save"}) == RESULTS
    assert [name for name in RESULTS if f"`.{name}" not in PAGE] == []


def test_an_unknown_name_is_an_attribute_error():
    for package in (trainer, ablations):
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            package.nothing  # noqa: B018


def test_report_stays_a_function_when_the_folder_of_that_name_is_imported():
    import orchestrator.report.files

    assert callable(orchestrator.report)


def test_every_package_says_that_it_is_typed():
    assert all(
        (ROOT / package / "py.typed").is_file() for package in ("ablations", "cluster", "orchestrator", "trainer")
    )


def test_results_are_frames_and_html():
    scores = {"seed": [0, 1, 2], "base": [1.0, 1.2, 1.1], "<ours>": [2.0, 2.1, 2.3]}
    found = orchestrator.judge(scores, name="mine")
    assert list(found.table["arm"]) == ["base", "<ours>"] and found.table["verdict"].iloc[1] == "undecided"
    assert found.runs.shape == (6, 3) and found.effects.empty
    assert "&lt;ours&gt;" in found._repr_html_() and "<ours>" not in found._repr_html_()
    assert str(found).startswith("mine   score, 3 seeds, paired")
    assert any("sign-flip test" in sentence for sentence in found.explained)


def test_results_are_written_where_they_are_asked_for(tmp_path):
    page = orchestrator.judge({"arm": ["a", "a", "b", "b"], "miou": [1.0, 2.0, 3.0, 4.0]}).write(tmp_path / "out")
    assert page == tmp_path / "out" / "report.html" and (tmp_path / "out" / "table.csv").is_file()


@pytest.mark.slow
def test_a_users_program_is_checked_by_its_types(tmp_path):
    program = tmp_path / "mine.py"
    program.write_text(
        "import ablations\nimport orchestrator\nimport trainer\n"
        'reveal_type(orchestrator.report("demo"))\nreveal_type(trainer.fit)\nreveal_type(ablations.load("demo"))\n'
        'orchestrator.judge("x.csv", margin="wide")\n',
        encoding="utf-8",
    )
    command = (sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), str(program))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "orchestrator.results.Results" in done.stdout
    assert "def (config: trainer.config.schema.TrainConfig" in done.stdout
    assert "ablations.study.schema.Study" in done.stdout
    assert 'Argument "margin" to "judge" has incompatible type "str"' in done.stdout
