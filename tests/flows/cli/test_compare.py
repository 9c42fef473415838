"""`contrans compare`: differences against SciPy's tests where items are kept, against intervals where they are not."""

import json
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from contrans.validation.outcomes import FILE, Outcomes
from registry import Registry, Result, Version
from tests.flows.cli.conftest import Typed
from tests.hub.concepts import TARGET, vector

N = 60
BEFORE = np.arange(N) < 30
LIKE = np.where(np.arange(N) < 3, ~BEFORE, BEFORE)  # three items fewer are right
BETTER = np.arange(N) < 46


def register(
    registry: Registry,
    hits: np.ndarray,
    seed: int,
    *,
    items: bool = True,
    name: str = "a",
    effect: str = "logit_accuracy",
) -> Version:
    """A transplant that is right on some items, as its validation says; its unsteered model is right on every other."""
    model = registry.register("model", TARGET.name, manifest=TARGET.to_json())
    transplant = registry.register(
        "transplant",
        name,
        manifest={"concept": "anger", "block": 2, "dose": 0.1 * seed, "same": "yes"},
        files=vector(TARGET, range(2, 3), seed=seed).to_files(),
        inputs={"target": model},
    )
    arms = {"transplanted": hits, "unsteered": np.arange(N) % 2 == 0}
    rows = []
    for arm, right in arms.items():
        value, half = float(right.mean()), 1.96 * float(right.std()) / sqrt(N)
        for metric in ("logit_accuracy", "token_accuracy"):
            rows.append(Result("anger", "emotion", "test", arm, metric, None, value, value - half, value + half, N))
    rows.append(Result("anger", "emotion", "test", "transplanted", "gain_recovered", None, 0.9, 0.8, 1.0, N))
    kept = Outcomes(effect, tuple(map(str, range(N))), {a: {"anger": r.astype(float)} for a, r in arms.items()})
    registry.register(
        "validation",
        f"{name}/emotion",
        manifest={"protocol": "emotion", "concept": "anger", "seed": seed},
        files={FILE: json.dumps(kept.to_json()).encode()} if items else {},
        inputs={"transplant": transplant},
        results=rows,
    )
    return transplant


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    with Registry.open(folder / "registry.db") as registry:
        for seed, hits in enumerate((BEFORE, LIKE, BETTER), 1):
            register(registry, hits, seed)
        register(registry, BETTER, 4, items=False, name="b")
        register(registry, BETTER, 5, name="c", effect="selectivity")
    return folder


def numbers(typed: Typed, home: Path, *names: str) -> dict[tuple[str, str], dict[str, Any]]:
    code, out, _ = typed("compare", *names, "--json", home=home)
    assert code == 0
    return {(n["arm"], n["metric"]): n for n in json.loads(out)["numbers"]}


def mcnemar(before: np.ndarray, after: np.ndarray) -> float:
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    return float(binomtest(gained, gained + lost).pvalue)


def test_the_effect_is_compared_item_by_item(typed: Typed, home: Path) -> None:
    found = numbers(typed, home, "a@1", "a@2", "a@3")
    first, like, better = found["transplanted", "logit_accuracy"]["differences"]
    assert first is None
    # Holm over the two arms of two versions; the unsteered model is the same in all, with p = 1.
    assert better["p"] == pytest.approx(4 * mcnemar(BEFORE, BETTER))
    assert like["p"] == pytest.approx(min(1.0, 3 * mcnemar(BEFORE, LIKE)))
    assert (better["verdict"], like["verdict"]) == ("higher", "no difference")
    assert better["change"] == pytest.approx(16 / 60)
    assert like["change"] == pytest.approx(-3 / 60)
    assert better["low"] < better["change"] < better["high"]
    assert [d and d["p"] for d in found["unsteered", "logit_accuracy"]["differences"]] == [None, 1.0, 1.0]


def test_other_numbers_are_compared_by_their_intervals(typed: Typed, home: Path) -> None:
    found = numbers(typed, home, "a@1", "a@3")["transplanted", "token_accuracy"]
    (value, low, high), (value2, low2, high2) = ([v[k] for k in ("value", "low", "high")] for v in found["values"])
    difference = found["differences"][1]
    assert (difference["test"], difference["p"]) == ("intervals", None)
    assert difference["low"] == pytest.approx(value2 - value - sqrt((value2 - low2) ** 2 + (high - value) ** 2))
    assert difference["high"] == pytest.approx(value2 - value + sqrt((high2 - value2) ** 2 + (value - low) ** 2))
    assert difference["verdict"] == "higher"


def test_without_items_intervals_decide(typed: Typed, home: Path) -> None:
    found = numbers(typed, home, "a@1", "b")
    assert {d["test"] for n in found.values() for d in n["differences"] if d} == {"intervals"}


def test_what_is_said_of_two_effects_is_not_compared(typed: Typed, home: Path) -> None:
    found = numbers(typed, home, "a@1", "a@2", "c")
    of_accuracy, of_selectivity = found["transplanted", "gain_recovered"]["differences"][1:]
    assert of_accuracy["verdict"] == "no difference"
    assert of_selectivity is None
    # the accuracy is the effect of one of them only, and is compared as other numbers are
    assert found["transplanted", "logit_accuracy"]["differences"][2]["test"] == "intervals"


def test_cosines_and_settings(typed: Typed, home: Path) -> None:
    found = json.loads(typed("compare", "a@1", "a@2", "--json", home=home)[1])
    one, two = (vector(TARGET, range(2, 3), seed=seed).directions[2].double().numpy() for seed in (1, 2))
    cosine = one @ two / np.linalg.norm(one) / np.linalg.norm(two)
    assert found["cosines"] == [{"block": 2, "cosines": [1.0, pytest.approx(cosine, abs=6e-4)]}]
    assert found["settings"][0]["name"] == "dose"
    assert {s["name"]: s["differs"] for s in found["settings"]} == {
        "dose": True,
        "block": False,
        "concept": False,
        "same": False,
    }


@pytest.mark.parametrize("width", [80, 120])
def test_side_by_side(typed: Typed, home: Path, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    code, out, _ = typed("compare", "a@1", "a@2", "a@3", "b", home=home)
    assert code == 0
    assert max(map(len, out.splitlines())) <= width
    assert "▲ +0.27, p < 0.001" in out
    assert "= -0.05, p = " in out
    assert "cosine to A" in out
    assert "settings that differ" in out
    assert "The same in all: block 2; concept anger; same yes." in " ".join(out.split())


def test_a_transplant_is_compared_by_what_it_was_made_with_too(typed: Typed, held: Path) -> None:
    names = [f"transplant:anger/smollm2-135m-instruct/large@{i}" for i in (1, 2)]
    found = json.loads(typed("compare", *names, "--json", home=held)[1])
    settings = {s["name"]: s for s in found["settings"]}
    assert settings["note"]["differs"]
    assert settings["map.estimator"]["values"] == ["ridge", "ridge"]
    assert settings["vector.estimator"]["values"] == ["mean_difference"] * 2


def test_what_was_not_validated_has_no_numbers(typed: Typed, held: Path) -> None:
    code, out, _ = typed("compare", "model:large", "model:other", home=held)
    assert code == 0
    assert "No validation judges any of them" in out
    assert "revision" in out
