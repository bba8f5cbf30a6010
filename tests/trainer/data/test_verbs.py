"""`data check` and `data make` as a user meets them: exit codes, what is printed where, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from trainer.config import DataConfig, UserError
from trainer.data import check_root, open_dataset
from trainer.verbs import data_report as verb

Command = Callable[..., Any]


@pytest.fixture
def camvid(data_command: Command, tmp_path: Path) -> Path:
    """Four and four pairs."""
    assert data_command("make", "camvid", tmp_path / "camvid")[0] == 0
    return tmp_path / "camvid"


def test_a_right_folder_ends_with_0_and_one_line_a_split(camvid: Path, data_command: Command) -> None:
    code, out, err = data_command("check", "camvid", camvid, "--subset")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"camvid in {camvid}"
    assert [line.split()[:4] for line in lines if "fingerprint" in line] == [
        ["train", "4", "pairs", "128x64"],
        ["val", "4", "pairs", "128x64"],
    ]
    assert "road" in out and "of all pixels ignored" in out
    assert lines[-1] == "no problems"
    assert "\x1b" not in out


def test_a_wrong_folder_ends_with_1_and_names_the_file_and_the_official_numbers(
    camvid: Path, data_command: Command
) -> None:
    (camvid / "labels" / "train" / "made_00002.png").unlink()
    code, out, _ = data_command("check", "camvid", camvid)
    assert code == 1
    assert f"problem: image without its label: {camvid}/images/train/made_00002.png; add the label" in out
    assert "problem: split train: 3 of 367 (official); complete the folder, or give --subset" in out
    assert "problem: split val: 4 of 101 (official)" in out
    assert "problem: split val: 4 images are 128x64, officially 480x360 (width x height)" in out
    assert "fingerprint none" in out
    assert out.splitlines()[-1] == "5 problems"


def test_conditions_have_official_numbers_of_their_own(data_command: Command, tmp_path: Path) -> None:
    data_command("make", "acdc", tmp_path / "acdc", "--val", 2)
    _, out, _ = data_command("check", "acdc", tmp_path / "acdc")
    assert "fog 1, night 1, rain 1, snow 1" in out
    for told in ("train, night: 1 of 400", "val, fog: 1 of 100", "val, night: 1 of 106", "val, snow: 0 of 100"):
        assert f"problem: split {told} (official)" in out


def test_a_condition_that_is_missing_is_told_of_a_part_too(data_command: Command, tmp_path: Path) -> None:
    data_command("make", "acdc", tmp_path / "acdc", "--val", 3)
    code, out, _ = data_command("check", "acdc", tmp_path / "acdc", "--subset")
    assert code == 0
    assert "fog 1, night 1, rain 1, snow 0" in out


def test_a_folder_that_holds_nothing_has_no_sizes_and_its_layout_is_told_once(
    data_command: Command, tmp_path: Path
) -> None:
    code, out, _ = data_command("check", "camvid", tmp_path)
    assert code == 1
    assert "train  0 pairs  fingerprint none" in out
    assert f"problem: no folder {tmp_path}/images/train; expected the layout images/" in out
    assert f"problem: no folder {tmp_path}/images/val\n" in out
    assert out.count("expected the layout") == 1


def test_many_problems_are_counted_and_the_first_shown(
    camvid: Path, data_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (camvid / "labels").rglob("*.png"):
        Image.new("L", (128, 64), 77).save(path)
    monkeypatch.setattr(verb, "SHOWN", 3)
    code, out, _ = data_command("check", "camvid", camvid, "--subset")
    assert code == 1
    assert out.count("problem: ") == out.count("holds 77") == 3
    assert out.splitlines()[-1] == "8 problems, 5 of them not shown"


@pytest.mark.slow
def test_a_class_that_a_whole_split_lacks_is_suspicious(camvid: Path, data_command: Command) -> None:
    for path in (camvid / "labels").rglob("*.png"):
        Image.new("L", (128, 64), 3).save(path)
    assert "split val: no pixel of sky, building, pole, sidewalk, tree" in data_command("check", "camvid", camvid)[1]
    assert "never: " in data_command("check", "camvid", camvid, "--subset")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("check", "camvit", "."), "unknown data set 'camvit'; did you mean 'camvid'"),
        (("check", "camvid"), "data set 'camvid' needs a folder"),
        (("check", "camvid", "/no/such/folder"), "no folder /no/such/folder"),
        (("check", "voc2012", ".", "--option", "aug"), "--option needs NAME=VALUE"),
        (("check", "voc2012", ".", "--option", "augh=true"), "unknown option 'augh'; did you mean 'aug'"),
        (("check", "voc2012", ".", "--option", "aug=maybe"), "aug must be true or false but got 'maybe'"),
        (("make", "camvid", "/no/such/folder", "--size", "big"), "--size must be HEIGHTxWIDTH"),
        (("make", "camvid", "/no/such/folder", "--size", "16x64"), "at least 32 pixels each way but got 16x64"),
    ],
)
def test_a_users_mistake_is_one_line_and_2(arguments: tuple[str, ...], message: str, data_command: Command) -> None:
    code, out, err = data_command(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_progress_is_silent_in_a_file_until_a_minute_has_passed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(verb.time, "monotonic", lambda: now[0])
    progress = verb.Progress("train")
    for done in range(1, 2976):
        now[0] += 0.1
        progress(done, 2975)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert lines[0].endswith(" of 2975 read")


def test_a_whole_data_set_can_be_asked_for(camvid: Path, tmp_path: Path) -> None:
    config = DataConfig(name="camvid", options={"whole": True})
    with pytest.raises(UserError, match=r"split train of .* holds 4 pairs, officially 367; .*data\.options\.whole"):
        check_root(config, camvid, tmp_path)
    assert len(open_dataset(DataConfig(name="camvid"), camvid, tmp_path).pairs("train")) == 4


def test_a_root_is_looked_at_without_reading_it(camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "open", None)
    check_root(DataConfig(name="camvid"), camvid, tmp_path)
    with pytest.raises(UserError, match="expected the layout leftImg8bit"):
        check_root(DataConfig(name="cityscapes"), camvid, tmp_path)
    with pytest.raises(UserError, match="needs a folder"):
        check_root(DataConfig(name="cityscapes"), None, tmp_path)
    check_root(DataConfig(name="scenes"), None, tmp_path / "cache")
    assert not (tmp_path / "cache").exists(), "scenes are painted when a run needs them"


def test_a_file_s_name_neither_steers_the_terminal_nor_forges_a_line(camvid: Path, data_command: Command) -> None:
    forged = camvid / "images" / "train" / "a\x1b[31m\nproblem: forged.jpg"
    Image.new("RGB", (128, 64)).save(forged)
    code, out, _ = data_command("check", "camvid", camvid, "--subset")
    assert code == 1
    assert "a\\x1b[31m\\nproblem: forged.jpg; add the label" in out
    assert "\x1b" not in out
    assert out.splitlines()[-1] == "1 problem"
    assert sum(line.startswith("problem: ") for line in out.splitlines()) == 1


def test_a_picture_of_train_in_val_is_a_leak_whatever_its_name_and_label(camvid: Path, data_command: Command) -> None:
    copied = camvid / "images" / "val" / "other.png"
    Image.open(next((camvid / "images" / "train").glob("made_00001.*"))).save(copied)
    (camvid / "labels" / "val" / "other.png").write_bytes((camvid / "labels" / "val" / "made_00000.png").read_bytes())
    code, out, _ = data_command("check", "camvid", camvid, "--subset")
    assert code == 1
    assert f"problem: {copied} is the same picture as {camvid}/images/train/made_00001" in out
    assert out.splitlines()[-1] == "1 problem"
