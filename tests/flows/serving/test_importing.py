"""A published concept comes into another registry through the flow, and one that is not there is a sentence."""

import json
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from registry import Registry
from registry.hub import publish
from tests.flows.conftest import Finished, Runner
from tests.hub import server
from tests.hub.concepts import fill

IMPORT = """
import json, os
from flows.cli.engine import engine
from flows.cli.talk import Talk
with engine(Talk(quiet=True)):
    from flows.serving.importing import import_from_hub
    print(json.dumps(import_from_hub(os.environ["REPO"])))
raise SystemExit
"""


def test_a_concept_of_the_hub(contrans: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with server.running() as hub:
        with Registry.open(tmp_path / "there.db") as registry:
            made = fill(registry)
            large = made.versions["large"].ref
            done = publish(registry, large, "org/anger", endpoint=hub.url, token=server.WRITER)
            source = made.versions["vector"].ref
        close_session()

        def imported(repo: str) -> Finished:
            return contrans(
                tmp_path / "here",
                code=IMPORT,
                REPO=repo,
                HF_ENDPOINT=hub.url,
                HF_HUB_CACHE=str(tmp_path / "hub-cache"),
                HF_HUB_DISABLE_XET="1",
                HF_HUB_OFFLINE="",
                NO_PROXY="127.0.0.1",
            )

        process = imported("org/anger")
        assert process.returncode == 0, process.stderr
        found = json.loads(process.stdout)
        assert (found["commit"], found["published_as"]) == (done.commit, source)
        missing = imported("org/nothing")
    assert missing.returncode != 0
    assert "org/nothing" in missing.stderr
    with Registry.open(tmp_path / "here" / "registry.db") as registry:
        version = registry.get(found["registered"]["ref"], "vector")
        assert version.manifest["concept"] == "anger"
        assert registry.check() == []
