"""`contrans registry …`: what it prints, and how it ends."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from contrans.errors import RegistryError
from flows.cli.registry_commands import registry_app
from registry import Registry
from tests.registry.conftest import make_chain

Typed = Callable[..., tuple[int, str]]


@pytest.fixture
def typed(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> Typed:
    monkeypatch.setenv("CONTRANS_REGISTRY", sqlite_url)

    def run(*words: str | Path) -> tuple[int, str]:
        found = CliRunner().invoke(registry_app, [str(word) for word in words], catch_exceptions=False)
        return found.exit_code, found.stdout

    return run


@pytest.fixture
def filled(sqlite_url: str) -> Registry:
    with Registry.open(sqlite_url) as registry:
        make_chain(registry)
        return registry


def test_check_repair_and_gc(typed: Typed, filled: Registry, tmp_path: Path) -> None:
    assert typed("check", "--grace", "0") == (0, "The registry is whole.\n")
    typed("backup", tmp_path / "b")
    sha256 = filled.files("map:smollm2/gemma-3")["map.safetensors"]
    (tmp_path / "blobs" / sha256[:2] / sha256).unlink()
    code, out = typed("check", "--json")
    assert (code, [problem["kind"] for problem in json.loads(out)]) == (1, ["missing"])
    assert typed("check", "--repair")[0] == 1
    code, out = typed("check", "--repair", "--from", tmp_path / "b")
    assert (code, out.split()[0]) == (0, "repaired")
    with pytest.raises(RegistryError, match="add --repair"):
        typed("check", "--from", tmp_path / "b")
    filled._blobs.put(b"stray")
    assert typed("check", "--grace", "0")[0] == 0
    assert "0 blobs" in typed("gc")[1]
    assert "1 blobs of no version, 0.0 MB, would be removed" in typed("gc", "--dry-run", "--grace", "0")[1]
    assert json.loads(typed("gc", "--grace", "0s", "--json")[1])["bytes"] == 5
    with pytest.raises(RegistryError, match="'soon' is not a time"):
        typed("gc", "--grace", "soon")


def test_backup_restore_export_import(typed: Typed, filled: Registry, tmp_path: Path) -> None:
    assert "holds 7 versions" in typed("backup", tmp_path / "b")[1].replace("\n", " ")
    code, out = typed("restore", tmp_path / "b", "--to", tmp_path / "new.db", "--blobs", tmp_path / "new")
    assert (code, out) == (0, "7 versions were restored.\n")
    assert len(json.loads(typed("export", tmp_path / "e", "anger", "--json")[1])) == 7
    _, out = typed("import", tmp_path / "e", "--json")
    assert [version["ref"] for version in json.loads(out)][-1] == "anger/gemma-3/emotion@1"


def test_aliases_tags_and_search(typed: Typed, filled: Registry) -> None:
    assert typed("protect", "production", "logit_accuracy>.95")[1] == "production  logit_accuracy > 0.95\n"
    with pytest.raises(RegistryError, match=r"logit_accuracy of anger is 0\.91, not > 0\.95"):
        typed("alias", "anger@1", "production")
    _, out = typed("alias", "anger@1", "production", "--force", "--json")
    assert json.loads(out)[0]["aliases"] == ["production"]
    assert json.loads(typed("protect", "--json")[1]) == {"production": "logit_accuracy > 0.95"}
    assert typed("protect", "production", "--lift")[1] == ""
    with pytest.raises(RegistryError, match="Give the alias a gate"):
        typed("protect", "production")
    assert typed("tag", "anger", "paper", "draft")[1] == "draft, paper\n"
    assert json.loads(typed("untag", "anger", "draft", "--json")[1]) == ["paper"]
    found = json.loads(typed("search", "gemma", "--tag", "paper", "--where", "logit_accuracy > .9", "--json")[1])
    assert [version["ref"] for version in found] == ["anger/gemma-3@1"]
    assert "anger/gemma-3" in typed("search", "--concept", "anger", "--limit", "2")[1]
    assert typed("search", "nosuch")[1] == "Nothing fits.\n"
    assert typed("stale")[1] == "Nothing is stale.\n"
    filled.register("text_set", "corpus", manifest={"hash": "cd"})
    assert "vector:anger/smollm2@1 was made from text_set:corpus@1 (texts)" in typed("stale")[1]
    assert json.loads(typed("stale", "anger", "--json")[1])[0]["direct"] is False
    assert typed("upgrade")[1] == "The registry is up to date.\n"
