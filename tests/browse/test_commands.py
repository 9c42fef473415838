"""`contrans browse` and `contrans report` as they are typed."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from contrans.errors import RegistryError, SpecError
from flows.cli.browse import add_browse_commands
from tests.browse.conftest import Filled

app = typer.Typer()
add_browse_commands(app)


def _run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_report_is_written_as_html_and_markdown(filled: Filled, tmp_path: Path) -> None:
    place = ("--registry", str(filled.path))
    assert _run("report", "anger@3", "-o", str(tmp_path / "r.html"), *place) == ""
    page = (tmp_path / "r.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "It recovers 0.70" in page
    assert not re.search(r'(src|href)="(?!#)', page)
    _run("report", "anger@3", "-o", str(tmp_path / "r.md"), *place)
    text = (tmp_path / "r.md").read_text()
    assert text == _run("report", "anger@3", "--format", "md", *place)
    assert text.startswith("# anger/small/tiny@3\n")
    assert "| **transplanted** |" in text
    assert "<script>" not in text


def test_mistakes_are_sentences(filled: Filled, tmp_path: Path) -> None:
    place = ("--registry", str(filled.path))
    for arguments, error, words in (
        (("report", "ghost", *place), RegistryError, "no version named"),
        (("report", "anger", "--format", "pdf", *place), SpecError, "html or md"),
        (("report", "anger", "-o", str(tmp_path / "none" / "r.html"), *place), SpecError, "cannot be written"),
        (("browse", "--registry", str(tmp_path / "none.db")), RegistryError, "There is no registry at"),
        (("browse", "--host", "0.0.0.0", *place), SpecError, "--token"),
    ):
        with pytest.raises(error, match=words):
            _run(*arguments)


def test_browse_serves_until_it_is_interrupted(filled: Filled) -> None:
    from urllib.request import urlopen

    code = "import typer; from flows.cli.browse import add_browse_commands; app = typer.Typer(); " + (
        "add_browse_commands(app); app()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "browse", "--registry", str(filled.path), "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        said = re.search(r"http://127\.0\.0\.1:\d+/", process.stderr.readline())
        assert said is not None
        with urlopen(said.group(), timeout=60) as answer:
            assert "anger/small/tiny@3" in answer.read().decode()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
    assert "Traceback" not in (process.stderr.read() if process.stderr else "")
