"""Texts that cannot be used end a run with one sentence, exit code 2, and nothing in the registry."""

import shutil
from pathlib import Path

import pytest
import yaml

from registry import Registry
from tests.flows.conftest import Runner


def circular(folder: Path) -> None:
    first = yaml.safe_load((folder / "moods" / "calm.yaml").read_text())["positive"][0]
    lines = (folder / "passages.txt").read_text().splitlines()
    (folder / "passages.txt").write_text("\n".join([f"And then: {first} as ever", *lines]))


def one_sided(folder: Path) -> None:
    path = folder / "moods" / "calm.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "positive": []}))


def too_few(folder: Path) -> None:
    (folder / "passages.txt").write_text("\n".join(f"only a few here, {i}" for i in range(8)))
    path = folder / "tiny.yaml"
    spec = yaml.safe_load(path.read_text())
    spec["corpus"] |= {"wrapped": 4, "truncated": 0}
    path.write_text(yaml.safe_dump(spec))


def too_long(folder: Path) -> None:
    lines = (folder / "passages.txt").read_text().splitlines()
    (folder / "passages.txt").write_text("\n".join(["on and on " * 1500, *lines]))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (circular, "a map must not see texts it is judged by"),
        (one_sided, "has no positive texts"),
        (too_few, "at least 5 documents"),
        (too_long, "reads at most"),
    ],
)
def test_a_sentence_and_nothing_registered(contrans: Runner, spec_path: Path, tmp_path: Path, spoil, sentence) -> None:
    folder, home = tmp_path / "tiny", tmp_path / "home"
    shutil.copytree(spec_path.parent, folder)
    spoil(folder)
    done = contrans(home, "run", folder / spec_path.name)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert sentence in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    if (home / "registry.db").exists():
        with Registry.open(home / "registry.db") as registry:
            assert registry.list() == []
            assert registry.check() == []
