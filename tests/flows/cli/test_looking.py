"""`contrans list`, `show`, `lineage` and `search`: what they print and how they end."""

import json
import re
from pathlib import Path

import pytest

from flows.cli.plots import sparkline
from registry.names import KINDS
from tests.flows.cli.conftest import Typed

TRANSPLANTS = {"anger/smollm2-135m-instruct/large": 2, "anger/smollm2-135m-instruct/other": 2}


def listed(typed: Typed, home: Path, *options: str) -> list[str]:
    code, out, _ = typed("list", "--json", *options, home=home)
    assert code == 0
    return [f"{v['kind']}:{v['ref']}" for v in json.loads(out)]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--kind", "map"], {"smollm2-135m-instruct/large", "smollm2-135m-instruct/other"}),
        (["--target", "large"], {"anger/smollm2-135m-instruct/large"}),
        (["--target", "org/large"], {"anger/smollm2-135m-instruct/large"}),
        (["--source", "smollm2-135m-instruct"], set(TRANSPLANTS)),
        (["--source", "large"], set()),
        (["--kind", "vector", "--estimator", "mean_difference"], {"anger/smollm2-135m-instruct"}),
        (["--alias", "production"], {"anger/smollm2-135m-instruct/large"}),
        (["--kind", "transplant", "--concept", "anger"], set(TRANSPLANTS)),
        (["--concept", "joy"], set()),
        (["--kind", "transplant", "--where", "logit_accuracy > .5"], set(TRANSPLANTS)),
        (["--where", "logit_accuracy > .99"], set()),
        (["--sort", "name"], set(TRANSPLANTS)),
    ],
)
def test_filters(typed: Typed, held: Path, options: list[str], names: set[str]) -> None:
    assert {ref.partition(":")[2].partition("@")[0] for ref in listed(typed, held, *options)} == names


@pytest.mark.parametrize("options", [[], ["--kind", "transplant"], ["--sort", "gain"], ["--source", "small"]])
def test_pages_together_are_all(typed: Typed, playable: Path, options: list[str]) -> None:
    every = listed(typed, playable, *options)
    pages, after = [], ""
    while True:
        rest = ["--after", after] if after else []
        code, out, err = typed("list", "--json", "--limit", "4", *options, *rest, home=playable)
        assert code == 0
        pages += [f"{v['kind']}:{v['ref']}" for v in json.loads(out)]
        if not err:
            break
        after = err.split("--after ")[1].split()[0]
    assert pages == every
    assert len(every) > 4


def test_the_best_come_first_with_their_gains_and_their_trend(typed: Typed, playable: Path) -> None:
    code, out, _ = typed("list", "--sort", "gain", home=playable)
    assert code == 0
    rows = [line.split() for line in out.splitlines() if "tiny" in line]
    gains = [float(gain) for gain in re.findall(r"\d\d:\d\d +([\d.]+)", out)]
    assert gains == sorted(gains, reverse=True) == [0.9, 0.8, 0.7, 0.7, 0.6, 0.5]
    assert sparkline([0.7, 0.8, 0.9]) in out.splitlines()[3]
    assert [row[1] for row in rows[:2]] == ["joy/small/tiny"] * 2


def test_a_narrow_terminal_shows_less(typed: Typed, playable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    _, out, _ = typed("list", "--kind", "transplant", home=playable)
    assert max(map(len, out.splitlines())) <= 70
    assert "gain" in out
    assert "kind" not in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["list", "--sort", "best"], "--sort takes new, name or gain"),
        (["list", "--kind", "map", "--target", "large"], "contrans search --kind map --model"),
        (["list", "--source", "x", "--after", "nonsense"], "begin with the first page"),
        (["list", "--where", "nonsense"], "nonsense"),
        (
            ["lineage", "anger/smollm2-135m-instruct/large", "--direction", "left"],
            "the directions are up, down and both",
        ),
        (["show", "angr"], "did you mean"),
        (["compare", "transplant:anger/smollm2-135m-instruct/large"], "compare two to 6"),
        (["search", "--kind", "vectr"], "the kinds are"),
    ],
)
def test_a_mistake_is_one_sentence(typed: Typed, held: Path, arguments: list[str], sentence: str) -> None:
    code, out, err = typed(*arguments, home=held)
    assert (code, out) == (2, "")
    assert err.startswith("Error: ")
    assert sentence in err


def test_search_at_the_top_is_that_of_the_registry(typed: Typed, playable: Path) -> None:
    code, out, _ = typed("search", "anger", "--kind", "transplant", "--json", home=playable)
    assert (code, out) == (0, typed("registry", "search", "anger", "--kind", "transplant", "--json", home=playable)[1])
    assert [v["ref"] for v in json.loads(out)] == [f"anger/small/tiny@{i}" for i in (3, 2, 1)]


@pytest.mark.parametrize("command", [["search"], ["registry", "search"]])
def test_search_shows_gains_as_a_list_does(typed: Typed, playable: Path, command: list[str]) -> None:
    code, out, _ = typed(*command, "anger", "--kind", "transplant", home=playable)
    assert (code, out) == (0, typed("list", "--kind", "transplant", "--concept", "anger", home=playable)[1])
    assert re.findall(r"0\.\d\d \[0\.\d\d, 0\.\d\d\]", out) == [
        "0.70 [0.65, 0.75]",
        "0.60 [0.55, 0.65]",
        "0.50 [0.45, 0.55]",
    ]
    assert sparkline([0.5, 0.6, 0.7]) in out
    assert "gain" not in typed(*command, "--kind", "model", home=playable)[1]


@pytest.mark.parametrize("width", [80, 120])
def test_show_says_draws_warns_and_helps_on(
    typed: Typed, playable: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    code, out, _ = typed("show", "joy", home=playable)
    words = " ".join(out.split())
    assert code == 0
    assert "The concept “joy”, refined from joy/small@1 and carried by a ridge map into block 2 of tiny" in words
    assert "It recovers 0.90 [0.85, 0.95] of the gain of the target's own vector." in words
    assert "logit_accuracy by arm" in out
    assert "├" in out
    assert "against dose" in out
    assert "failure: The source hardly holds joy" in words
    assert "samples" in out
    assert "    print(target.complete(" in out
    assert out.rstrip().endswith("contrans play joy/small/tiny@3")
    drawn = [line for line in out.splitlines() if not line.startswith("  ")]
    assert max(len(line.rstrip()) for line in drawn) <= width


def test_show_gives_the_addresses_of_runs_where_they_are_known(
    typed: Typed, playable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert "run-1  completed  Prefect flow-1  MLflow mlflow-1" in typed("show", "joy", home=playable)[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://m:5000")
    monkeypatch.setenv("PREFECT_API_URL", "http://p:4200/api")
    words = " ".join(typed("show", "joy", home=playable)[1].split())
    assert "Prefect http://p:4200/runs/flow-run/flow-1 MLflow http://m:5000/#/runs/mlflow-1" in words


def test_show_of_every_kind(typed: Typed, playable: Path) -> None:
    newest = {reference.partition(":")[0]: reference for reference in reversed(listed(typed, playable))}
    assert set(newest) == set(KINDS)
    for reference in newest.values():
        code, out, err = typed("show", reference, home=playable)
        assert (code, err) == (0, "")
        assert out.startswith(reference.partition(":")[2])
        shown = json.loads(typed("show", reference, "--json", home=playable)[1])
        assert {"manifest", "files", "inputs", "used_by", "results", "runs"} <= shown.keys()


@pytest.mark.parametrize(
    ("options", "roles"),
    [
        (["--direction", "up", "--depth", "1"], {"vector", "map", "target"}),
        (["--direction", "up"], {"vector", "map", "target", "source", "model", "texts"}),
        (["--direction", "down"], {"transplant"}),
        (["--depth", "1"], {"vector", "map", "target", "transplant"}),
    ],
)
def test_lineage_as_far_as_asked(typed: Typed, playable: Path, options: list[str], roles: set[str]) -> None:
    code, out, _ = typed("lineage", "joy", *options, "--json", home=playable)
    assert (code, {edge["role"] for edge in json.loads(out)["edges"]}) == (0, roles)
    _, out, _ = typed("lineage", "joy", *options, home=playable)
    assert ("made from" in out) == ("vector" in roles)
    assert ("used by" in out) == ("transplant" in roles)
