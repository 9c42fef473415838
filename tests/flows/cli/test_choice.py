"""`--choice FILE`: what one run chose serves another concept of the same pair."""

import json
from pathlib import Path

import pytest

from contrans.errors import SpecError
from flows.cli.choice import settings_of_choice
from flows.spec import load_spec
from tests.flows.cli.conftest import Typed

CHOSEN = {
    "source_block": 27,
    "target_block": 13,
    "mix": ["wrapped", "spread"],
    "estimator": "whitened",
    "lambda_select": "r2",
}


def test_a_choice_becomes_the_settings_of_another_spec(tmp_path: Path) -> None:
    path = tmp_path / "strict.json"
    path.write_text(json.dumps({"choice": {"chosen": CHOSEN, "tried": []}}))
    spec = load_spec("honesty", settings_of_choice(path))
    assert (spec.blocks.source, spec.blocks.target) == (27, 13)
    assert spec.corpus.mixes == [["wrapped", "spread"]]
    assert (spec.map.estimator, spec.map.lambda_select) == ("whitened", "r2")
    # the rest is that of the spec
    assert spec.validate_ == load_spec("honesty").validate_


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read as JSON"),
        ("{", "cannot be read as JSON"),
        ("[]", "holds no choice of a map"),
        ('{"choice": null}', "holds no choice of a map"),
        ('{"choice": {"chosen": {"source_block": 3}}}', "lacks 'target_block'"),
    ],
)
def test_what_holds_no_choice_is_refused(tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "results.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SpecError, match=words):
        settings_of_choice(path)


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_mistake_is_one_sentence(typed: Typed, tmp_path: Path, command: str) -> None:
    code, out, err = typed(command, "honesty", "--choice", str(tmp_path / "no.json"), home=tmp_path)
    assert (code, out) == (2, "")
    assert "no.json cannot be read as JSON" in " ".join(err.split())


def test_a_setting_that_is_typed_wins(typed: Typed, spec_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "strict.json"
    path.write_text(json.dumps({"choice": {"chosen": {**CHOSEN, "source_block": 99, "target_block": 2}}}))
    settings = ["--set", "blocks.source=98", "--set", "corpus.mixes=[]", "--set", "map.estimator=ridge"]
    code, _, err = typed("plan", str(spec_path), "--choice", str(path), *settings, home=tmp_path)
    assert code == 2
    assert "98" in err


def test_a_plan_says_how_to_run_what_it_planned(typed: Typed, tmp_path: Path) -> None:
    path = tmp_path / "strict.json"
    path.write_text(json.dumps({"choice": {"chosen": CHOSEN}}))
    code, _, err = typed("plan", "honesty", "--on", "h100", "--choice", str(path), home=tmp_path)
    assert code == 0
    said = " ".join(err.split())
    assert "next contrans run honesty --set blocks.source=27 --set blocks.target=13" in said
    assert "--set 'corpus.mixes=[[wrapped,spread]]'" in said
