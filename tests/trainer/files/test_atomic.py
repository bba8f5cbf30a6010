"""Files that are written whole or not at all: what is left and said when the disk is full."""

import errno

import pytest

from trainer.data.scenes import CITY, write_scenes
from trainer.files.atomic import replacing


def write_to_a_full_disk(path):
    with replacing(path) as temporary:
        temporary.symlink_to("/dev/full")
        temporary.write_text("new", encoding="utf-8")


def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path):
    path = tmp_path / "kept.txt"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(OSError, match=str(path)) as caught:
        write_to_a_full_disk(path)
    assert caught.value.errno == errno.ENOSPC
    assert path.read_text(encoding="utf-8") == "old" and list(tmp_path.iterdir()) == [path]


def test_a_disk_that_scenes_fill_is_named_by_their_folder(tmp_path):
    images = tmp_path / "leftImg8bit" / "train" / CITY
    images.mkdir(parents=True)
    (images / f"{CITY}_000000_000019_leftImg8bit.png").symlink_to("/dev/full")
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}'"):
        write_scenes(tmp_path, train=1, val=1, seed=0, size=(32, 64))
