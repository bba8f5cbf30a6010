"""Files below a folder: linked folders are followed, and each file comes once."""

from __future__ import annotations

from pathlib import Path

from trainer.data.own_folder.patterns import find_files
from trainer.data.own_folder.walk import files_below


def test_linked_folders_are_followed_and_each_file_comes_once(tmp_path: Path) -> None:
    here, away = tmp_path / "here", tmp_path / "away"
    for file in (here / "seq1" / "a.png", here / "b.png", away / "seq2" / "c.png", away / "d.png"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (here / "latest").symlink_to(here / "seq1")
    (here / "linked").symlink_to(away / "seq2")
    (here / "more").symlink_to(away / "seq2")
    (here / "seq1" / "up").symlink_to(here)
    (here / "z.png").symlink_to(away / "d.png")
    found = [path.relative_to(here).as_posix() for path in files_below(here)]
    assert found == ["b.png", "linked/c.png", "seq1/a.png", "z.png"]


def test_a_pattern_reaches_what_a_linked_folder_holds(tmp_path: Path) -> None:
    (tmp_path / "away" / "seq1").mkdir(parents=True)
    (tmp_path / "away" / "seq1" / "a_L.png").touch()
    (tmp_path / "root" / "frames").mkdir(parents=True)
    (tmp_path / "root" / "frames" / "linked").symlink_to(tmp_path / "away")
    file = tmp_path / "root" / "frames" / "linked" / "seq1" / "a_L.png"
    for pattern, stem in (
        ("frames", "linked/seq1/a_L"),
        ("frames/**/*_L.png", "linked/seq1/a"),
        ("frames/*/*/*.png", "linked/seq1/a_L"),
        ("**/*.png", "frames/linked/seq1/a_L"),
        ("frames/linked/**/*_L.*", "seq1/a"),
        ("./frames/l?nked/seq[1]/a_L.png", "i/1"),
    ):
        assert find_files("images", tmp_path / "root", pattern) == {stem: file}, pattern
