"""`contrans browse` and `contrans report` as they are typed."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from contrans.errors import ContransError, RegistryError, SpecError
from flows.cli.browse import add_browse_commands
from registry.browse import Reader, serving
from registry.browse.printing import NAMES
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
        (("report", "anger", "--format", "doc", *place), SpecError, "html, md, pdf"),
        (("report", "anger", "-o", str(tmp_path / "none" / "r.html"), *place), SpecError, "cannot be written"),
        (("browse", "--registry", str(tmp_path / "none.db")), RegistryError, "There is no registry at"),
        (("browse", "--host", "0.0.0.0", *place), SpecError, "--token"),
        (("browse", "--mlflow", "javascript:alert(1)", *place), SpecError, "--mlflow .* is no web address"),
    ):
        with pytest.raises(error, match=words):
            _run(*arguments)


@pytest.mark.skipif(not any(map(shutil.which, NAMES)), reason="there is no chromium: apt-get install chromium")
def test_report_is_printed_as_pdf(filled: Filled, tmp_path: Path) -> None:
    _run("report", "anger@3", "-o", str(tmp_path / "r.pdf"), "--registry", str(filled.path))
    printed = (tmp_path / "r.pdf").read_bytes()
    assert printed.startswith(b"%PDF-")
    assert printed.rstrip().endswith(b"%%EOF")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) >= 1


def test_pdf_that_cannot_be_printed_is_a_sentence(
    filled: Filled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = ("report", "anger@3", "-o", str(tmp_path / "r.pdf"), "--registry", str(filled.path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ContransError, match="printed by Chromium, and none is installed"):
        _run(*wanted)
    (tmp_path / "chromium").write_text("#!/bin/sh\necho no paper >&2\n")
    (tmp_path / "chromium").chmod(0o755)
    with pytest.raises(ContransError, match=r"printed nothing \(no paper\); try --format html"):
        _run(*wanted)
    assert not (tmp_path / "r.pdf").exists()


def test_port_is_another_one_only_where_none_is_named(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, Reader.open(filled.path) as reader:
        port = taken.getsockname()[1]
        monkeypatch.setattr(serving, "PORT", port)
        monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: None)
        said: list[str] = []
        serving.serve(reader, ready=said.append)
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", said[0])
        assert f":{port}/" not in said[0]
        with pytest.raises(SpecError, match=f"Port {port} of 127"):
            serving.serve(reader, port=port)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_browse_serves_until_it_is_interrupted(filled: Filled, options: list[str]) -> None:
    from urllib.request import urlopen

    code = "import typer; from flows.cli.browse import add_browse_commands; app = typer.Typer(); " + (
        "add_browse_commands(app); app()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "browse", "--registry", str(filled.path), "--port", "0", *options],
        env=os.environ
        | {"MLFLOW_TRACKING_URI": "http://127.0.0.1:5000", "PREFECT_API_URL": "http://127.0.0.1:4200/api"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stderr.readline() if not options else "".join(process.stdout.readline() for _ in range(3))
        said = re.search(r"http://127\.0\.0\.1:\d+/", line)
        assert said is not None
        if options:
            assert json.loads(line) == {"address": said.group()}
        with urlopen(said.group(), timeout=60) as answer:
            assert "anger/small/tiny@3" in answer.read().decode()
        with urlopen(said.group() + "version/transplant/anger/small/tiny@3", timeout=60) as answer:
            page = answer.read().decode()
        assert 'href="http://127.0.0.1:5000/#/runs/mlflow-1"' in page
        assert 'href="http://127.0.0.1:4200/runs/flow-run/flow-1"' in page
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
    assert "Traceback" not in (process.stderr.read() if process.stderr else "")
