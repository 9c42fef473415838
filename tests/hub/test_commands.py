"""The commands of the Hub, as somebody types them, in a process of their own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from registry import Registry
from tests.hub.concepts import SOURCE, TARGET, Made
from tests.hub.server import WRITER, Hub

REPO = "org/concept-anger"
NAME = f"anger/{SOURCE.name}/{TARGET.name}"
PROGRAM = """
import sys
import typer
from contrans.errors import ContransError
from flows.cli.hub_commands import add_hub_commands
app = typer.Typer()
add_hub_commands(app)
try:
    app(sys.argv[1:])
except ContransError as error:
    sys.exit(f"Error: {error}")
"""
Typed = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def typed(hub: Hub, tmp_path: Path, made: Made) -> Typed:
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": WRITER,
        "CONTRANS_HOME": str(tmp_path),
        "COLUMNS": "140",
    }
    for name in ("CONTRANS_REGISTRY", "HF_HUB_OFFLINE"):  # the loopback Hub is there even where the real one is barred
        environment.pop(name, None)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", PROGRAM, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
        assert WRITER not in done.stdout + done.stderr
        return done

    return run


def test_publish_search_and_pull(hub: Hub, typed: Typed, registry: Registry) -> None:
    dry = typed("publish", NAME, "--to", REPO, "--dry-run", "--quiet")
    assert (dry.returncode, dry.stderr, hub.requests) == (0, "", [])
    assert "would be published as org/concept-anger@v1; nothing was sent" in dry.stdout
    done = typed("publish", NAME, "--to", REPO, "--targets", "all", "--json", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["commit"] == hub.repos[REPO].head.oid
    [found] = json.loads(typed("hub", "search", "--json").stdout)
    assert (found["repo"], found["concept"]) == (REPO, "anger")
    pulled = json.loads(typed("pull", f"{REPO}@v1", "--target", TARGET.reference, "--json", "--quiet").stdout)
    assert (pulled["blocks"], pulled["dose"], pulled["registered"]["kind"]) == ([2], 0.2, "transplant")
    assert registry.get(f"{REPO}/{TARGET.name}", "transplant").number == 1


def test_mistakes_are_sentences(typed: Typed) -> None:
    refused = typed("pull", "org/nothing")
    assert refused.returncode != 0
    assert "org/nothing is not on the Hub" in refused.stderr
    assert "Traceback" not in refused.stderr
