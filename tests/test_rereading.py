"""Files are read once, and again when they have changed."""

from pathlib import Path

import pytest

from contrans.rereading import read_once


def test_a_file_is_read_again_only_when_it_changed(tmp_path: Path) -> None:
    seen: list[str] = []

    @read_once
    def read(path: Path) -> str:
        seen.append(path.read_text())
        return seen[-1]

    file = tmp_path / "a.txt"
    file.write_text("one")
    assert [read(file), read(file)] == ["one", "one"]
    file.write_text("other")
    assert read(file) == "other"
    assert seen == ["one", "other"]
    file.unlink()
    with pytest.raises(FileNotFoundError):
        read(file)
