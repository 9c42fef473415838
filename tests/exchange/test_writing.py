"""An export is whole or not there, and never takes the place of what is."""

import pytest

from contrans.errors import ArtifactError
from contrans.exchange.writing import write_by, write_content


def names(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def read(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("content", "left"),
    [(b"new", ["v"]), ({"a": b"1", "b": b"2"}, ["v", "v/a", "v/b"]), ({"in/a": b"1"}, ["v", "v/in", "v/in/a"])],
)
def test_written_once_and_again_only_by_force(content, left, tmp_path):
    path = write_content(tmp_path / "deep" / "v", content)
    assert names(tmp_path / "deep") == left
    with pytest.raises(ArtifactError, match="is there already; choose another path, or add --force"):
        write_content(path, b"other")
    assert names(tmp_path / "deep") == left
    for other in (b"file", {"c": b"3"}, content):
        write_content(path, other, force=True)
        assert (path.read_bytes() if path.is_file() else read(path)) == other
    assert names(tmp_path / "deep") == left


def test_what_fails_midway_leaves_what_was(tmp_path):
    path = write_content(tmp_path / "v", {"a": b"1"})

    def broken(part):
        part.mkdir()
        (part / "half").write_bytes(b"x")
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        write_by(path, broken, force=True)
    with pytest.raises(ValueError, match="stop"):
        write_by(tmp_path / "w", broken)
    assert names(tmp_path) == ["v", "v/a"]


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ArtifactError, match="cannot be written"):
        write_content(tmp_path / "file" / "v", b"x")
