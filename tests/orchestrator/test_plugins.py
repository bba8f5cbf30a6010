"""Studies with plugins: planned, run under Ray, bundled, and reported without the files; mistakes are one line."""

import json
import shutil
import tarfile

import pytest

from ablations.study.plan import expand
from ablations.study.schema import load
from trainer.config.plugin import read_plugin
from trainer.data.make import make_tree
from trainer.plugins.load import activate, entries_of

FILES = ("my_kd.py", "my_net.py", "my_data.py")


@pytest.fixture
def tree(own):
    """A folder of the plugin's data set."""
    dataset = entries_of(read_plugin("my_data.py", own))["DATASETS"]["blobs"]
    make_tree(dataset(own / "tree", cache=own), train=8, val=4, seed=0, size=(64, 128))
    return own / "tree"


def keys(file):
    return {run.label: run.key for run in expand(load(file))}


def edited(folder, name):
    with (folder / name).open("a") as file:
        file.write("# changed\n")


@pytest.mark.slow
def test_a_plan_lists_what_plugins_define(own, tree, driver):
    done = driver.here("plan", own / "own.yaml", "--data-root", tree, "--no-probe")
    assert (done.code, done.err) == (0, "")
    assert "mean_gap" in done.out
    assert "teacher segformer_tiny" in done.out


def test_a_changed_file_makes_new_runs_of_those_that_use_it(own):
    before = keys(own / "own.yaml")
    edited(own, "my_kd.py")
    after = keys(own / "own.yaml")
    assert {label for label in before if before[label] != after[label]} == {"mean gap seed 0", "mean gap seed 1"}
    edited(own, "my_net.py")
    assert keys(own / "own.yaml")["teacher segformer_tiny seed 0"] == before["teacher segformer_tiny seed 0"]
    edited(own, "my_data.py")
    assert not set(keys(own / "own.yaml").values()) & {*before.values(), *after.values()}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "my_kd.py",
            "x = (\n",
            "own.yaml: plugin my_kd.py, line 1 is not Python: '(' was never closed; correct the file",
        ),
        ("my_kd.py", "x = 1\n", "own.yaml: plugin my_kd.py defines nothing: write one of DISTILLERS, MODELS, DATASETS"),
        (
            "my_kd.py",
            "import my_helper\nDISTILLERS = {'mean_gap': 1}\n",
            "own: plugin my_kd.py, line 1 does not run: No mo",
        ),
        (
            "my_kd.py",
            "DISTILLERS = {'csf': 1}\n",
            "own: plugin my_kd.py: the distiller 'csf' is defined twice, for it is",
        ),
        ("my_net.py", "MODELS = {'small_net': 1}\n", "own: plugin my_net.py: the model 'small_net' must be a class or"),
        (
            "my_data.py",
            "DATASETS = {'blobs': 1}\n",
            "own: plugin my_data.py: the data set 'blobs' must be a class derived",
        ),
        (
            "my_net.py",
            "def net(classes, drop_path, dropout):\n    return {}['a']\nMODELS = {'small_net': net}\n",
            "own: student alone: plugin my_net.py, line 2: KeyError: 'a'; `transkd plugin check my_net.py` tells more",
        ),
    ],
)
def test_a_broken_plugin_is_one_line_and_writes_nothing(name, text, message, own, tree, driver):
    refused(name, text, message, own, tree, driver)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (
            "my_data.py",
            "        images = folder",
            "        images = (1 / 0) or folder",
            "own: plugin my_data.py, line 19: ZeroDivisionError: division by zero; `transkd plugin check my_data.py`",
        ),
        ("my_data.py", "return Found(", "return (", "own: plugin my_data.py: find() of Blobs must give a Found"),
        (
            "my_net.py",
            "return SegOutput(logits, features, ())",
            "return logits",
            "own: student alone: plugin my_net.py: student: forward must return a SegOutput",
        ),
        (
            "my_kd.py",
            "theirs).square().mean()",
            "theirs).square().mean(1)",
            "own: mean gap: plugin my_kd.py: distill.mean_gap: the loss must be a float scalar, but is torch.float32",
        ),
    ],
)
def test_a_plugin_that_is_wrong_when_it_runs_is_one_line_and_writes_nothing(name, old, new, message, own, tree, driver):
    text = (own / name).read_text()
    assert old in text
    refused(name, text.replace(old, new), message, own, tree, driver)


def refused(name, text, message, own, tree, driver):
    (own / name).write_text(text)
    for verb in (("plan", "--no-probe"), ("run",)):
        done = driver.here(verb[0], own / "own.yaml", "--data-root", tree, *verb[1:])
        assert done.code == 2
        assert message in done.err
        assert len(done.err.splitlines()) == 1
    assert driver.events() == []


PACKAGED = """
name: packaged
base:
  data: {name: scenes, size: [32, 64], options: {train: 4, val: 4, size: [32, 64]}}
  student: {name: segformer_tiny}
  teacher: {name: segformer_tiny, train: {epochs: 1}}
  optim: {epochs: 1, global_batch: 4}
variants: {theirs: {distill: {NAME: {}}}}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        "variants: {theirs: {distill: {mean_gap: {}}}}",
        "leave_one_out: distill\nvariants: {theirs: {distill.mean_gap.weight: 2.0}}",
        "factors: {distill.mean_gap.weight: [1.0, 2.0]}",
    ],
)
def test_names_of_a_package_are_valid_in_every_part_of_a_study(change, install, own, driver):
    install({"my_kd.py": (own / "my_kd.py").read_text()}, "mean_gap = my_kd:MeanGap")
    text = PACKAGED.partition("variants")[0] + change + "\n"
    if "distill.mean_gap" in change:
        text = text.replace("  optim", "  distill: {mean_gap: {}, csf: {}}\n  optim")
    (own / "packaged.yaml").write_text(text)
    done = driver.here("plan", own / "packaged.yaml", "--no-probe")
    assert (done.code, done.err) == (0, "")


def test_a_package_that_does_not_run_stops_only_the_studies_that_name_it(install, own, driver):
    install({"my_kd.py": "\nimport nothing_of_this_name\n"}, "their_gap = my_kd:Gap")
    study = own / "packaged.yaml"
    study.write_text(PACKAGED.replace("NAME", "csf"))
    done = driver.here("plan", study, "--no-probe")
    assert (done.code, done.err) == (0, "")
    study.write_text(PACKAGED.replace("NAME", "their_gap"))
    done = driver.here("plan", study, "--no-probe")
    assert (done.code, done.err) == (
        2,
        "error: packaged: plugin my-kd 1.2: the distiller 'their_gap' cannot be loaded from my_kd:Gap, line 2 of "
        "my_kd.py: No module named 'nothing_of_this_name'; install what it imports, or correct the package\n",
    )


def test_a_missing_file_is_named(own, driver):
    (own / "my_net.py").unlink()
    done = driver.here("plan", own / "own.yaml")
    assert (done.code, done.err) == (
        2,
        f"error: {own}/own.yaml: plugins: no such file: {own}/my_net.py; put it beside the study\n",
    )


@pytest.mark.slow
@pytest.mark.ray
def test_a_study_with_plugins_is_run_bundled_and_reported_elsewhere(own, tree, driver, tmp_path):
    done = driver("run", own / "own.yaml", "--data-root", tree)
    assert done.code == 0, done.out + done.err
    assert len(driver.events("finished")) == 5
    used = {event["arm"]: [p["name"] for p in event["config"]["plugins"]] for event in driver.events("started")}
    assert used == {
        "teacher segformer_tiny": ["my_data.py"],
        "student alone": ["my_data.py", "my_net.py"],
        "mean gap": ["my_data.py", "my_kd.py", "my_net.py"],
    }
    archive, table = tmp_path / "own.tar.gz", driver.table("own")
    done = driver("bundle", own / "own.yaml", "--out", archive)
    assert done.code == 0, done.err
    with tarfile.open(archive) as packed:
        held = {name: packed.extractfile(f"own/{name}").read().decode() for name in (*FILES, "plugins.json")}
    assert {name: held[name] for name in FILES} == {name: (own / name).read_text() for name in FILES}
    assert [record["name"] for record in json.loads(held["plugins.json"])] == list(FILES)

    shutil.rmtree(own)
    activate([])
    for name, study in (("bundled", archive), ("stored", "own")):
        folder = tmp_path / name
        done = driver.here("report", study, "--out", folder)
        assert done.code == 0, done.err
        assert (folder / "table.txt").read_text() == table
        page = (folder / "report.html").read_text()
        assert "<dt>Own modules</dt><dd>my_data.py (data set blobs; sha256 " in page
        assert "my_kd.py (distiller mean_gap; sha256 " in page
    done = driver.here("run", "own", "--data-root", tmp_path)
    assert done.code == 2, "its data are gone, its plugins are not"
    assert "layout" in done.err or "no folder" in done.err
