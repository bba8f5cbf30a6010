"""The codes of lint: the page lists each, each has a slip, and packaged files have those of what is to be filled in."""

import ast
import re
import runpy
from collections import Counter
from pathlib import Path

import cluster
from cluster.launchers.lint_launcher import lint_launcher, read
from cluster.spec import ClusterSpec
from cluster.spec_file import load
from orchestrator.verbs.lint import _misspelt

FOLDER = Path(cluster.__file__).parent


def codes_in(file):
    """The codes that the findings of a source have."""
    calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    return {call.args[0].value for call in calls if ast.unparse(call.func) == "Finding"}


SOURCES = [*FOLDER.rglob("*.py"), FOLDER.parent / "orchestrator" / "verbs" / "lint.py"]


def test_the_page_lists_every_code_and_no_other():
    page = (FOLDER.parent / "docs" / "clusters.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| (.+) \| (.+) \|$", page, re.MULTILINE)
    listed = [code for code, _, _ in rows]
    assert listed == sorted(listed)
    assert set(listed) == set().union(*map(codes_in, SOURCES))


def test_every_code_of_a_launcher_file_has_a_slip():
    tables = [runpy.run_path(str(file))["SLIPS"] for file in Path(__file__).parent.glob("test_*_slips.py")]
    slips = [slip for table in tables for slip in table]
    of_launchers = set().union(*map(codes_in, (FOLDER / "launchers").glob("*.py")))
    assert of_launchers - {"placeholder", "head-takes-runs"} <= {code for *_, codes in slips for code in codes.split()}
    assert len(slips) >= 40


def test_a_head_on_which_runs_fit_is_named(packaged, codes_of, with_change):
    spec = ClusterSpec(address="auto", cpus_per_worker=2, max_cpus=48, store="/mnt/transkd/store")
    assert "head-takes-runs" not in codes_of(packaged["aws"], spec)
    file = with_change("aws", r"resources: \{CPU: 0\}", "resources: {CPU: 4}")
    assert "head-takes-runs" in codes_of(file, spec)
    (found,) = [finding for finding in lint_launcher(read(file), spec) if finding.code == "head-takes-runs"]
    assert file.read_text().splitlines()[found.line - 1].strip() == "head:"


def test_a_job_in_kueues_queue_begins_at_its_full_size(tmp_path, packaged, codes_of, codes_as_packaged):
    text = packaged["kuberay"].read_text()
    for old, new in (
        ("  # labels: {kueue.x-k8s.io/queue-name: fill-in-queue}", "  labels: {kueue.x-k8s.io/queue-name: team}"),
        ("enableInTreeAutoscaling: true", "enableInTreeAutoscaling: false"),
        ("  replicas: 0", "  replicas: 8"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    (tmp_path / packaged["kuberay"].name).write_text(text)
    assert Counter(codes_of(tmp_path / packaged["kuberay"].name, load("kuberay"))) == codes_as_packaged("kuberay")


def test_only_what_is_to_be_filled_in_is_named_in_a_packaged_file(packaged, codes_as_packaged):
    for name in packaged:
        assert set(codes_as_packaged(name)) <= {"placeholder"}


def test_a_misspelt_study_is_named_and_one_of_ones_own_is_not(packaged):
    assert read(packaged["kuberay"]).study == "cityscapes_modules"
    (finding,) = _misspelt("cityscape_modules", 33)
    assert str(finding).startswith("study-unknown: line 33: ") and "did you mean 'cityscapes_modules'?" in str(finding)
    assert not (
        _misspelt("cityscapes_modules") or _misspelt("mine") or _misspelt("/studies/mine.yaml") or _misspelt("")
    )
