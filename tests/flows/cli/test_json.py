"""Every command that reads or shows something gives it as JSON too, and that is all that stdout then holds."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from flows.cli.app import app
from registry.schema import SCHEMA
from tests.flows.cli.conftest import Typed
from tests.flows.conftest import Done, Runner

OF_THEIR_OWN = {
    "schema": "prints JSON and nothing else",
    "report": "writes a document, as HTML, Markdown or PDF; `show --json` has its numbers",
}


def commands(of: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, TyperCommand | TyperGroup]]:
    """Those that do something: the program alone, and every command of every group."""
    if not path or not isinstance(of, TyperGroup):
        yield " ".join(path), of
    if isinstance(of, TyperGroup):
        for name, inner in of.commands.items():
            yield from commands(inner, (*path, name))


def test_every_command_takes_json() -> None:
    found = dict(commands(get_command(app)))
    assert {"list", "show", "compare", "lineage", "search", "play", "registry search", "hub search"} <= found.keys()
    without = {name for name, of in found.items() if not any("--json" in option.opts for option in of.params)}
    assert without == OF_THEIR_OWN.keys()


def test_front_page(typed: Typed, playable: Path, tmp_path: Path) -> None:
    code, out, err = typed("--json", home=playable)
    found = json.loads(out)
    assert (code, err, found["home"], found["registry"]["problem"]) == (0, "", str(playable), None)
    kinds = {"model": 2, "text_set": 1, "vector": 2, "map": 3, "transplant": 6, "validation": 7}
    assert found["registry"]["versions"] == kinds
    latest = found["registry"]["latest"]
    assert (latest["ref"], latest["gain_recovered"]["value"]) == ("joy/small/tiny@3", pytest.approx(0.9))
    assert found["next"] == "contrans show joy/small/tiny@3"
    found = json.loads(typed("--json", home=tmp_path / "nowhere")[1])
    assert found["registry"] == {"versions": {}, "latest": None, "problem": None}
    assert found["next"] == "contrans run quickstart"
    (tmp_path / "registry.db").write_bytes(b"this is no database")
    found = json.loads(typed("--json", home=tmp_path)[1])
    assert "database" in found["registry"]["problem"]
    assert found["next"] == "contrans registry check"


def test_json_before_a_command_is_not_swallowed(typed: Typed, playable: Path) -> None:
    code, out, err = typed("--json", "list", home=playable)
    assert (code, out) == (2, "")
    assert "put it behind the command" in err


def test_upgrade_and_restore(typed: Typed, playable: Path, tmp_path: Path) -> None:
    assert json.loads(typed("registry", "upgrade", "--json", home=tmp_path / "new")[1]) == {"schema": SCHEMA}
    assert typed("registry", "backup", tmp_path / "all.tar", "--quiet", home=playable)[0] == 0
    code, out, _ = typed("registry", "restore", tmp_path / "all.tar", "--json", "--quiet", home=tmp_path / "again")
    assert (code, json.loads(out)) == (0, {"versions": 21})


def test_study(contrans: Runner, done: Done, spec_path: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"  # others count what the finished run registered
    shutil.copytree(done.home, home, ignore=shutil.ignore_patterns("prefect"))
    spec = spec_path.with_name("draws.yaml")
    spec.write_text(f"{spec_path.read_text()}sweep: {{validate.random_draws: [2, 3]}}\n")
    process = contrans(home, "study", spec, "-o", tmp_path / "study", "--json")
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout) == json.loads((tmp_path / "study" / "results.json").read_text())
    assert "study.parquet" in process.stderr
