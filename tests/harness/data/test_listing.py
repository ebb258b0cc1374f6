"""Listing the data files in a folder."""

from __future__ import annotations

from pathlib import Path

from harness.data.description import listed


def test_hidden_files_are_not_listed(tmp_path: Path) -> None:
    names = ["b/2.png", "a ü/1.png"]
    beside = ["a ü/._1.png", "a ü/Thumbs.db", "b/.DS_Store", ".Trash/3.png", "._b/4.png"]
    for name in names + beside:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert listed(tmp_path, "*/*.png") == [tmp_path / "a ü/1.png", tmp_path / "b/2.png"]


def test_the_folder_itself_may_be_hidden_or_missing(tmp_path: Path) -> None:
    folder = tmp_path / ".cache"
    assert listed(folder, "*") == []
    folder.mkdir()
    (folder / "1.png").touch()
    assert listed(folder, "*") == [folder / "1.png"]
