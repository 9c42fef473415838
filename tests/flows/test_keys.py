"""A step's key tells apart all that changes what comes of it: what a model reads, and what counts as right."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows.spec import load_spec
from flows.steps import build_steps

QUESTIONS = "Category,Question,Best Answer,Correct Answers,Incorrect Answers\n"
TRUTH = ("validate.protocol=truthfulqa", "concepts=[honesty/persona]", "refine.pairs=4")


@dataclass(frozen=True)
class Facts:
    name: str
    fingerprint: str
    n_blocks: int = 4
    family: str = "llama"


def keys(spec: Path, *settings: str) -> dict[str, str]:
    steps = build_steps(load_spec(spec, settings), Facts("source", "s"), Facts("target", "t"))
    return {step.name: step.key for step in steps}


@pytest.fixture
def folder(spec_path: Path, tmp_path: Path) -> Path:
    """A tiny pipeline whose texts may be changed; its models are never read."""
    return Path(shutil.copytree(spec_path.parent, tmp_path / "copy", ignore=shutil.ignore_patterns("*.safetensors")))


def moved(folder: Path, file: str, old: str, new: str) -> set[str]:
    """The steps whose keys a changed file moves."""
    before = keys(folder / "tiny.yaml")
    path = folder / file
    text = path.read_text(encoding="utf-8")
    assert re.search(old, text)
    path.write_text(re.sub(old, new, text), encoding="utf-8")
    after = keys(folder / "tiny.yaml")
    return {name for name in before if before[name] != after[name]}


def test_a_capital_in_the_corpus_is_another_text(folder: Path) -> None:
    found = moved(folder, "passages.txt", "that number", "that NUMBER")
    assert {"capture corpus · source", "capture corpus · target", "fit maps", "validate"} <= found
    assert "refine · source" not in found


def test_a_capital_in_a_contrast_set_is_another_text(folder: Path) -> None:
    found = moved(folder, "moods/calm.yaml", "the lake lies", "the LAKE lies")
    assert {"capture concepts · source", "refine · source", "calibrate dose", "validate"} <= found


def test_a_source_that_is_read_elsewhere_leaves_the_targets_states_alone(folder: Path) -> None:
    before, after = (keys(folder / "tiny.yaml", f"refine.source_position={at}") for at in ("null", "mean"))
    found = {name for name in before if before[name] != after[name]}
    assert {"capture concepts · source", "capture corpus · source", "refine · source", "validate"} <= found
    assert not found & {"capture concepts · target", "capture corpus · target", "refine · target"}


def test_an_encoder_is_read_at_all_tokens_where_no_others_are_named(folder: Path) -> None:
    def capturing(*settings: str, family: str = "bert") -> tuple[str, str]:
        models = Facts("source", "s", family=family), Facts("target", "t")
        steps = build_steps(load_spec(folder / "tiny.yaml", settings), *models)
        concepts, corpus = (
            next(s.key for s in steps if s.name == f"capture {w} · source") for w in ("concepts", "corpus")
        )
        return concepts, corpus

    mean, last = (capturing(f"refine.source_position={at}", family="llama") for at in ("mean", "last"))
    assert mean != last
    assert capturing() == mean
    assert capturing(family="llama") == capturing("refine.source_position=last") == last
    # a position that was asked for holds for both models
    assert capturing("refine.position=last:2") == capturing("refine.position=last:2", family="llama")


def test_another_label_is_judged_anew(folder: Path) -> None:
    found = moved(folder, "moods/calm.yaml", "label: calm", "label: quiet")
    assert {"calibrate dose", "validate"} <= found
    assert "capture concepts · source" not in found


def test_answers_that_change_sides_are_judged_anew(folder: Path) -> None:
    rows = [f"Misc,What is rule {i}?,It is {i}.,It is {i}.; It is known {i}.,It is not {i}." for i in range(40)]
    questions = folder / "questions.csv"
    data = f"validate.data={questions}"
    questions.write_text(QUESTIONS + "\n".join(rows), encoding="utf-8")
    before = keys(folder / "tiny.yaml", *TRUTH, data)
    other = [row.replace("; It is known ", ",It is known ").replace(".,It is not", ".; It is not") for row in rows]
    questions.write_text(QUESTIONS + "\n".join(other) + "\n", encoding="utf-8")
    after = keys(folder / "tiny.yaml", *TRUTH, data)
    assert before["validate"] != after["validate"]
    assert before["capture concepts · source"] == after["capture concepts · source"]
