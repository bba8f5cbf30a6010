"""What a job is sent: the program as git has it, the study with its plugins and spec, and which commit that is."""

import shutil
import subprocess
from pathlib import Path

import pytest

from orchestrator.store.provenance import git
from orchestrator.submit import package as module
from orchestrator.submit.package import pack
from trainer.config import UserError

STUDY = """
name: mine
plugins: [my_kd.py]
base:
  data: {name: scenes, size: [64, 128], options: {train: 16, val: 8, size: [64, 128]}}
  student: {name: segformer_tiny}
  teacher: {name: segformer_mini, train: {epochs: 1}}
  optim: {lr: 1.0e-3, epochs: 1, global_batch: 8}
variants: {own: {distill: {mean_gap: {}}}}
"""


@pytest.fixture
def checkout(tmp_path):
    """A repository with a commit, changes since, and what must not be sent."""
    folder = tmp_path / "checkout"
    for name in ("trainer/a.py", "ablations/grid.py", "deep/er/b.txt", "gone.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("1\n")
    (folder / "link").symlink_to("/etc")
    (folder / ".gitignore").write_text("data/\n*.pt\n")

    def run(*words):
        who = ("-c", "user.name=a", "-c", "user.email=a@example.com")
        subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True)

    run("init")
    run("add", "-A")
    run("commit", "-m", "first")
    (folder / "trainer" / "a.py").write_text("2\n")
    (folder / "gone.py").unlink()
    (folder / "trainer" / "new.py").write_text("3\n")
    for name in ("data/image.png", "last.pt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(bytes(100))
    return folder


@pytest.fixture
def study(tmp_path, own):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "mine.yaml").write_text(STUDY)
    (folder / "spec.yaml").write_text("store: /mnt/store\naddress: auto\n")
    shutil.copy(own / "my_kd.py", folder)
    return folder / "mine.yaml"


@pytest.fixture
def sent(tmp_path):
    (tmp_path / "sent").mkdir()
    return tmp_path / "sent"


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_files_of_git_the_study_its_plugins_and_the_spec_are_sent(checkout, study, sent):
    package = pack(checkout, str(study), str(study.parent / "spec.yaml"), sent)
    found = names(sent)
    diff = next(name for name in found if name.endswith(".diff"))
    assert found == {
        *("trainer/a.py", "ablations/grid.py", "deep/er/b.txt"),
        *("submitted/mine.yaml", "submitted/my_kd.py", "submitted/spec/spec.yaml", "submitted/git.json", diff),
    }
    assert (sent / "trainer" / "a.py").read_text() == "2\n", "as it is here, not as it was committed"
    assert package.study.name == "mine"
    assert package.words == ("submitted/mine.yaml", "--cluster", "submitted/spec/spec.yaml")
    size, links, unknown = package.about
    assert size.startswith("8 files, 0.0 MiB; the largest: submitted/")
    assert links == "not sent: 1 link or submodule of git (link)"
    assert unknown == "not sent: 1 file that git does not track (trainer/new.py); `git add` them"


def test_a_packaged_study_and_a_packaged_spec_are_named(checkout, sent):
    package = pack(checkout, "demo", "gpu", sent)
    assert package.words == ("demo", "--cluster", "gpu")
    assert [name for name in names(sent) if name.startswith("submitted/") and not name.endswith(".diff")] == [
        "submitted/git.json"
    ]


def test_commit_and_changes_are_recorded_from_the_package_as_from_the_checkout(checkout, sent, tmp_path):
    pack(checkout, "demo", None, sent)
    before, after = tmp_path / "before", tmp_path / "after"
    assert git(sent, after) == git(checkout, before) != {}
    (diff,) = before.iterdir()
    assert (after / diff.name).read_bytes() == diff.read_bytes() and b"+2" in diff.read_bytes()
    assert not (sent / ".git").exists()
    (sent / "submitted" / "git.json").write_text("damaged")
    assert git(sent, after) == {}


def test_a_package_that_ray_would_refuse_is_refused_with_its_largest_files(checkout, sent, monkeypatch):
    (checkout / "deep" / "er" / "b.txt").write_bytes(bytes(3 * 2**20))
    monkeypatch.setattr(module, "MOST_BYTES", 2**20)
    with pytest.raises(UserError, match=r"at most 1\.0 MiB but has 3\.0 MiB, the largest deep/er/b\.txt 3\.0 MiB, "):
        pack(checkout, "demo", None, sent)


@pytest.mark.parametrize(
    ("study_name", "cluster", "message"),
    [
        ("demos", None, "unknown study 'demos'"),
        ("demo", "absent.yaml", "absent.yaml"),
        ("none.yaml", None, "none.yaml"),
    ],
)
def test_a_study_or_a_spec_that_is_wrong_is_refused_before_anything_is_copied(
    checkout, sent, study_name, cluster, message
):
    with pytest.raises((UserError, ValueError), match=message):
        pack(checkout, study_name, cluster, sent)
    assert names(sent) == set()


def test_a_file_named_as_a_packaged_study_is_the_one_that_is_sent(checkout, study, sent, monkeypatch):
    monkeypatch.chdir(study.parent)
    study.rename(study.parent / "demo")
    assert pack(checkout, "demo", None, sent).words == ("submitted/demo",)


def test_a_repository_that_does_not_hold_the_program_is_refused(checkout, sent):
    subprocess.run(["git", "-C", str(checkout), "rm", "-q", "--cached", "ablations/grid.py"], check=True)
    with pytest.raises(UserError, match=r"git tracks no ablations/grid\.py in .*checkout; clone the repository"):
        pack(checkout, "demo", None, sent)


def test_a_folder_that_is_no_checkout_is_refused(tmp_path, sent):
    (tmp_path / "plain").mkdir()
    with pytest.raises(
        UserError, match=r"git says of .*plain: not a git repository.*; clone the repository, or use `ray"
    ):
        pack(tmp_path / "plain", "demo", None, sent)


def test_a_plugin_that_is_missing_is_named(checkout, study, sent):
    (Path(study).parent / "my_kd.py").unlink()
    with pytest.raises(UserError, match=r"my_kd\.py"):
        pack(checkout, str(study), None, sent)


def test_the_store_of_this_machine_is_not_the_clusters(driver):
    done = driver.here("submit", "demo", "--cluster", "aws")  # TRANSKD_STORE is set here
    assert done.code == 2
    assert "store (cluster spec): must name a bucket of yours but got the placeholder s3://fill-in-bucket" in done.err
