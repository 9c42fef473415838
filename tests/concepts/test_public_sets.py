"""The contrast sets written from public texts, on made-up files of the same form."""

import json
from pathlib import Path

import pytest

from contrans.concepts import contrast_sets
from tests.public_sets import emotions, hate, style

WORDS = "one two three four five six seven eight nine"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for name in ("emotions", "text", "toxigen_demonstrations"):
        (folder / name).mkdir(parents=True)
    for mood in ("joy", "rage"):
        scenarios = [f"A day of {mood}, number {i}." for i in range(40)]
        texts = [*scenarios, " Stands in both. ", scenarios[0], " Stands in both. "]
        (folder / f"emotions/{mood}.json").write_text(json.dumps(texts))
    speeches = [f"SPEAKER:\nThou {i}\n{WORDS}" for i in range(60)]
    (folder / "text/tiny_shakespeare.txt").write_text("\n\n".join([*speeches, "SPEAKER:\nNay."]))
    lines = [f"The town {i} ( now gone ) has {WORDS} .\tthe rest" for i in range(60)]
    (folder / "text/wikisplit_tune.tsv").write_text("\n".join([*lines, f'He said " {WORDS} " .\tthe rest']))
    for side in ("hate", "neutral"):
        text = "\n".join(f"A {side} line {i} {WORDS}" for i in range(30))
        for group in ("a", "b"):
            (folder / f"toxigen_demonstrations/{side}_{group}.txt").write_text(f"{text}\n{side} of {group} {WORDS}")
    return folder


def test_a_scenario_of_several_emotions_is_in_none(data: Path, tmp_path: Path) -> None:
    written = emotions(data, tmp_path / "public")
    found = contrast_sets([str(path) for path in written])
    assert {c.concept: (c.label, len(c.positives)) for c in found} == {"joy": ("joy", 40), "rage": ("rage", 40)}
    assert not any("both" in e.text for c in found for e in c.positives)


@pytest.mark.parametrize(("write", "labels", "n"), [(style, {"old", "modern"}, 60), (hate, {"neutral", "hateful"}, 32)])
def test_pairs_are_of_fit_length_and_each_text_is_there_once(write, labels, n, data: Path, tmp_path: Path) -> None:
    (path,) = write(data, tmp_path / "public")
    (found,) = contrast_sets([str(path)])
    assert set(found.labels) == labels
    assert len(found.positives) == len(found.negatives) == n
    texts = [e.text for e in (*found.positives, *found.negatives)]
    assert len(set(texts)) == 2 * n
    assert all(8 <= len(t.split()) <= 30 for t in texts)
    assert not any(odd in t for t in texts for odd in ('"', "( ", " .", "SPEAKER", "Nay"))


def test_fewer_texts_are_spread_over_the_whole_file(data: Path, tmp_path: Path) -> None:
    (path,) = style(data, tmp_path / "public", n=6)
    (found,) = contrast_sets([str(path)])
    speeches = [e.text for e in found.positives]
    assert [int(t.split()[1]) for t in sorted(speeches, key=lambda t: int(t.split()[1]))] == [0, 10, 20, 30, 40, 50]
