"""`contrans` alone: what it says, how fast, and that it changes nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli.front import program
from registry import Registry
from tests.flows.cli.conftest import Typed


def test_a_newcomer_is_told_how_to_begin(typed: Typed, tmp_path: Path) -> None:
    code, out, err = typed(home=tmp_path / "nowhere")
    assert (code, err) == (0, "")
    assert "The registry holds nothing yet." in out
    assert str(tmp_path / "nowhere") in out
    assert "Next: contrans run quickstart" in out
    assert not (tmp_path / "nowhere").exists()


def test_it_says_what_there_is(typed: Typed, playable: Path) -> None:
    code, out, _ = typed(home=playable)
    assert code == 0
    assert "The registry holds 2 models, 1 text set, 2 vectors, 3 maps, 6 transplants, 7 validations." in out
    assert "The latest: joy/small/tiny@3  gain recovered 0.90 [0.85, 0.95]" in out
    assert "Next: contrans show joy/small/tiny@3" in out


def test_an_empty_registry_has_no_latest(typed: Typed, tmp_path: Path) -> None:
    Registry.open(tmp_path / "registry.db").close()
    code, out, _ = typed(home=tmp_path)
    assert (code, "The registry holds nothing yet." in out, "latest" in out) == (0, True, False)


def test_what_cannot_be_read_is_said(typed: Typed, tmp_path: Path) -> None:
    (tmp_path / "registry.db").write_bytes(b"this is no database")
    code, out, err = typed(home=tmp_path)
    assert (code, err) == (0, "")
    assert "The registry cannot be shown:" in out
    assert "Next: contrans registry check" in out


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_nothing_heavy_is_imported(playable: Path, arguments: list[str]) -> None:
    code = (
        "import sys\nfrom flows.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit:\n"
        "    heavy = {'torch', 'transformers', 'prefect', 'mlflow', 'matplotlib', 'pandas'} & set(sys.modules)\n"
        "    sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "CONTRANS_HOME": str(playable)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_commands_are_written_as_they_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "bin" / "contrans"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(script)])
    monkeypatch.setenv("PATH", str(script.parent))
    assert program() == "contrans"
    monkeypatch.setenv("PATH", "/nowhere")
    assert program() == str(script)
    monkeypatch.chdir(tmp_path)
    assert program() == "bin/contrans"
    monkeypatch.setattr(sys, "argv", ["-c"])
    assert program() == "contrans"
