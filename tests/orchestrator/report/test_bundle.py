"""A bundle reports what its store reports, byte by byte, wherever it lies, and holds this study and no other."""

import gzip
import io
import json
import os
import re
import shutil
import tarfile
import tempfile

import pytest

from orchestrator.report import bundle as bundles
from orchestrator.report.bundle import lock, pack, unpacked
from orchestrator.report.files import FILES
from orchestrator.state.stored_studies import study_source
from orchestrator.store.ledger import Ledger
from orchestrator.verbs.bundle import bundle
from orchestrator.verbs.report import report
from trainer.config import UserError

KINDS = ("arms", "search", "tuned")


def members(file):
    with tarfile.open(file) as archive:
        return {info.name: (archive.extractfile(info) or io.BytesIO()).read() for info in archive.getmembers()}


def lines(content):
    return [json.loads(line) for line in content.splitlines()]


@pytest.fixture
def packed(synthetic, tmp_path):
    """packed(kind) -> the synthetic study and the file of its bundle."""

    def make(kind="arms"):
        made = synthetic(kind)
        file = tmp_path / "archive" / f"{made.study.name}.tar.gz"
        pack(made.study, made.file.read_text(), made.store, file)
        return made, file

    return make


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_reports_the_bytes_that_its_store_reports(packed, tmp_path, capsys, monkeypatch, kind):
    made, file = packed(kind)
    report(str(made.file), made.store.root, None, tmp_path / "from store")
    said = capsys.readouterr().out
    elsewhere = tmp_path / "another machine"
    elsewhere.mkdir()
    moved = shutil.move(file, elsewhere / "renamed.tar.gz")
    shutil.rmtree(made.store.root)
    made.file.unlink()
    monkeypatch.chdir(elsewhere)
    report(str(moved), None, None, None)
    assert capsys.readouterr().out == said
    written = elsewhere / f"{made.study.name}-report"
    names = {path.name for path in written.iterdir()}
    assert names == {path.name for path in (tmp_path / "from store").iterdir()} >= {*FILES}
    for name in names:
        assert (written / name).read_bytes() == (tmp_path / "from store" / name).read_bytes(), name
        assert (written / name).read_bytes() == members(moved)[f"{made.study.name}/report/{name}"], name


@pytest.mark.slow
def test_the_same_study_makes_the_same_archive(packed, tmp_path):
    made, file = packed()
    os.utime(made.store.ledger, (0, 0))
    again = tmp_path / "again.tar.gz"
    assert pack(made.study, made.file.read_text(), made.store, again) == file.stat().st_size
    assert again.read_bytes() == file.read_bytes()


@pytest.mark.slow
def test_it_holds_study_plan_lock_ledger_and_report_for_people_to_read(packed):
    made, file = packed()
    found = members(file)
    assert found["arms/study.yaml"].decode() == made.file.read_text()
    plan = lines(found["arms/plan.jsonl"])
    assert [(run["role"], run["arm"], run["seed"]) for run in plan][:2] == [
        ("teacher", "teacher segformer_mini", 0),
        ("arm", "student alone", 0),
    ]
    assert plan[1]["changes"] == {"distill": {}}
    assert plan[1]["config"]["optim"]["lr"] == 1.0e-3
    assert plan[2]["teacher"] == plan[0]["key"]
    assert "torch==" in found["arms/lock.txt"].decode()
    assert found["arms/ledger.jsonl"] == made.store.ledger.read_bytes()
    assert "arms/README.md" in found


@pytest.mark.slow
def test_no_password_of_an_earlier_version_s_store_gets_into_a_bundle(synthetic, tmp_path):
    made = synthetic("arms")
    run = next(iter(Ledger(made.store.ledger).outcomes()))
    said = {"event": "note", "time": "2026-01-01T00:00:00", "run_id": run, "text": "no http://u:hunter2@h"}
    begun = {"event": "study", "time": said["time"], "study": "arms", "environment": {"git": {"diff": "abc"}}}
    made.store.ledger.write_text(
        "".join(json.dumps(event) + "\n" for event in (begun, said)) + made.store.ledger.read_text()
    )
    (made.store.root / "diffs").mkdir()
    (made.store.root / "diffs" / "abc.diff").write_text("+uri = 'http://u:hunter2@h'\n")
    file = tmp_path / "some.tar.gz"
    pack(made.study, made.file.read_text(), made.store, file)
    found = members(file)
    assert b"http://***@h" in found["arms/ledger.jsonl"]
    assert found["arms/diffs/abc.diff"] == b"+uri = 'http://***@h'\n"
    assert not [name for name, content in found.items() if b"hunter2" in content]


def test_the_lock_names_every_package_once():
    named = [line.partition("==")[0] for line in lock().splitlines()[1:]]
    assert {"torch", "numpy", "ray", "optuna"} <= set(named)
    assert named == sorted(set(named))


@pytest.mark.slow
def test_of_other_studies_only_what_is_shared_comes_along(packed, tmp_path):
    made, _ = packed()
    shared = next(run for run in Ledger(made.store.ledger).outcomes().values() if run.status == "finished")
    text = made.store.ledger.read_text()
    before = [
        {"event": "study", "time": "2026-01-01T00:00:00", "study": "unrelated", "environment": {"torch": "0.1"}},
        {
            "event": "started",
            "time": "2026-01-01T00:00:00",
            "study": "unrelated",
            "run_id": "u",
            "key": "k",
            "arm": "a",
            "seed": 0,
        },
        {"event": "study", "time": "2026-01-01T00:00:00", "study": "earlier", "environment": {"torch": "0.2"}},
        {
            "event": "started",
            "time": "2026-01-01T00:00:00",
            "study": "earlier",
            "run_id": shared.run_id,
            "key": shared.key,
            "seed": 0,
        },
        {"event": "study", "time": "2026-01-01T00:00:00", "study": "arms", "environment": {"git": {"diff": "abc"}}},
    ]
    made.store.ledger.write_text("".join(json.dumps(event) + "\n" for event in before) + text)
    (made.store.root / "diffs").mkdir()
    (made.store.root / "diffs" / "abc.diff").write_text("- a\n+ b\n")
    file = tmp_path / "some.tar.gz"
    pack(made.study, made.file.read_text(), made.store, file)
    found = members(file)
    assert lines(found["arms/ledger.jsonl"])[: len(before) - 1] == [*before[2:], json.loads(text.splitlines()[0])]
    assert found["arms/diffs/abc.diff"] == b"- a\n+ b\n"
    with unpacked(file) as (_, store):
        assert Ledger(store.ledger).outcomes().keys() == Ledger(made.store.ledger).outcomes().keys() - {"u"}


@pytest.mark.slow
def test_the_verb_writes_here_unless_told_otherwise(synthetic, tmp_path, monkeypatch, capsys):
    made = synthetic()
    monkeypatch.chdir(tmp_path)
    bundle(str(made.file), made.store.root, None, None)
    assert capsys.readouterr().out.startswith("arms.tar.gz: ")
    with pytest.raises(UserError, match=r"must end in \.tar\.gz but got arms\.zip"):
        bundle(str(made.file), made.store.root, None, tmp_path / "arms.zip")
    with pytest.raises(UserError, match="holds nothing of arms; run the study first"):
        bundle(str(made.file), tmp_path / "empty", None, None)


def test_what_is_no_bundle_is_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match="no such file"), unpacked(tmp_path / "none.tar.gz"):
        pass
    text = tmp_path / "text.tar.gz"
    text.write_text("not an archive")
    with pytest.raises(UserError, match="is not a bundle"), unpacked(text):
        pass
    empty = tmp_path / "empty.tar.gz"
    with tarfile.open(empty, "w:gz"):
        pass
    with pytest.raises(UserError, match=r"needs study\.yaml and ledger\.jsonl"), unpacked(empty):
        pass


@pytest.mark.slow
def test_an_archive_of_endless_content_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(bundles, "MAX_BYTES", 100_000_000)
    file = tmp_path / "bomb.tar.gz"
    with gzip.open(file, "wb") as raw:
        for _ in range(101):
            raw.write(bytes(1_000_000))
    with pytest.raises(UserError, match=r"holds more than 0\.1 GB, the most that a bundle may"), unpacked(file):
        pass


def test_a_sparse_file_of_endless_content_is_refused_before_it_is_unpacked(tmp_path):
    file = tmp_path / "sparse.tar.gz"
    with gzip.open(file, "wb") as raw, tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("arms/ledger.jsonl")
        info.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(9 * 10**12)}
        archive.addfile(info, io.BytesIO(b""))
    with pytest.raises(UserError, match=r"holds more than 8 GB, the most that a bundle may"), unpacked(file):
        pass


PLUGIN = {"name": "my_net.py", "sha256": "0" * 64, "entries": {"MODELS": ["net"]}, "source": ""}
STUDY = """
name: arms
plugins: [my_net.py]
base: {student: {name: net}}
variants: {one: {}}
"""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, ""),
        ({"plugins.json": b"no json"}, "is damaged: plugins.json is no list of records; take another copy of it"),
        ({"plugins.json": b"[" * 100_000}, "is damaged: plugins.json is no list of records; take another copy of it"),
        ({"plugins.json": b"\xff"}, "is damaged: plugins.json is no list of records; take another copy of it"),
        ({"plugins.json": b"{}"}, "is damaged: plugins.json is no list of records; take another copy of it"),
        ({"plugins.json": b"[1]"}, "is damaged: plugins.json is no list of records; take another copy of it"),
        ({"plugins.json": b'[{"name": "x"}]'}, "base: plugins.0.sha256: is missing"),
        (
            {"plugins.json": b"[]"},
            "is damaged: plugins.json lacks my_net.py, which study.yaml names; take another copy",
        ),
        ({"plugins.json": None}, "is damaged: plugins.json lacks my_net.py, which study.yaml names; take another copy"),
        ({"ledger.jsonl": b"garbage\n{}\n"}, "is damaged: ledger.jsonl has a line that is no event; take another copy"),
        ({"ledger.jsonl/x": b"", "ledger.jsonl": None}, "it needs study.yaml and ledger.jsonl in one folder"),
        ({"study.yaml/x": b"", "study.yaml": None}, "it needs study.yaml and ledger.jsonl in one folder"),
    ],
)
def test_a_bundle_whose_members_are_not_what_they_should_be_is_one_line(tmp_path, change, message):
    """Archives without checksums, which are then told by their content."""
    file = tmp_path / "own.tar.gz"
    whole = {"study.yaml": STUDY.encode(), "ledger.jsonl": b"", "plugins.json": json.dumps([PLUGIN]).encode(), **change}
    with tarfile.open(file, "w:gz") as archive:
        for name, content in whole.items():
            if content is not None:
                info = tarfile.TarInfo(f"arms/{name}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    if not message:
        with unpacked(file) as (study, _):
            assert [record["name"] for record in study.base["plugins"]] == ["my_net.py"]
        return
    with pytest.raises(UserError, match=re.escape(message)) as refused, unpacked(file):
        pass
    assert "\n" not in str(refused.value)
    assert str(tempfile.gettempdir()) not in str(refused.value).replace(str(file), "")


def test_commands_that_need_a_study_say_that_a_bundle_is_none(tmp_path):
    with pytest.raises(
        UserError, match=r"arms\.tar\.gz is a bundle, which `transkd report`, `status` and `explain` read"
    ):
        study_source(str(tmp_path / "arms.tar.gz"), Ledger(tmp_path / "ledger.jsonl"))


@pytest.mark.parametrize("name", ["../outside.txt", "/tmp/outside.txt", "arms/link"])
def test_an_archive_that_reaches_outside_is_refused(tmp_path, name):
    file = tmp_path / "evil.tar.gz"
    with gzip.open(file, "wb") as raw, tarfile.open(fileobj=raw, mode="w") as archive:
        info = tarfile.TarInfo(name)
        if name.endswith("link"):
            info.type, info.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(info, io.BytesIO(b""))
    with pytest.raises(UserError, match="is not a bundle"), unpacked(file):
        pass
    assert not (tmp_path / "outside.txt").exists()


def rewritten(file, change):
    """The archive again, whole, with its members changed: name -> content."""
    found = members(file)
    change(found)
    with gzip.open(file, "wb") as raw, tarfile.open(fileobj=raw, mode="w") as archive:
        for name, content in found.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def flip(found, name):
    found[name] = bytes([found[name][0] ^ 1]) + found[name][1:]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["study.yaml", "ledger.jsonl", "plan.jsonl", "lock.txt", "report/report.html", "README.md"]
)
def test_a_member_that_has_changed_is_named(packed, name):
    _, file = packed()
    rewritten(file, lambda found: flip(found, f"arms/{name}"))
    with pytest.raises(UserError, match=rf"is damaged: {name} is changed, by its checksums\.sha256"), unpacked(file):
        pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda found: found.pop("arms/lock.txt"), "lock.txt is missing"),
        (lambda found: found.update({"arms/more.txt": b"x"}), "more.txt is not listed"),
        (lambda found: found.update({"arms/checksums.sha256": b"\xff nothing"}), "README.md is not listed"),
    ],
)
def test_members_that_are_missing_or_not_listed_are_named(packed, change, what):
    _, file = packed()
    rewritten(file, change)
    with pytest.raises(UserError, match=what), unpacked(file):
        pass


@pytest.mark.slow
def test_a_byte_that_was_flipped_anywhere_or_cut_off_is_found(packed):
    _, file = packed()
    whole = file.read_bytes()
    for place in (0, 1, 3, 10, len(whole) // 3, len(whole) // 2, len(whole) - 8, len(whole) - 1):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        if place not in (3,):  # flags of the header that nobody reads
            with pytest.raises(UserError, match=r"is not a bundle|is damaged"), unpacked(file):
                pass
    for end in (1, 8, len(whole) // 2):
        file.write_bytes(whole[:-end])
        with pytest.raises(UserError, match="is not a bundle"), unpacked(file):
            pass
    file.write_bytes(whole)
    with unpacked(file) as (study, _):
        assert study.name == "arms"


@pytest.mark.slow
def test_a_bundle_of_an_earlier_version_has_no_checksums_and_is_read(packed, capsys):
    _, file = packed()
    with unpacked(file):
        assert capsys.readouterr().err == ""
    rewritten(file, lambda found: found.pop("arms/checksums.sha256"))
    with unpacked(file) as (study, store):
        assert study.name == "arms" and Ledger(store.ledger).outcomes()
    assert "has no checksums.sha256: an earlier version wrote it, or it was edited" in capsys.readouterr().err
    rewritten(file, lambda found: found.update({"arms/study.yaml": b"name: \xff"}))
    with pytest.raises(UserError, match=r"study\.yaml is no text"), unpacked(file):
        pass
