import json
from collections import Counter
from importlib.resources import files

import pytest

from contrans.data.passage_filter import MAX_SAME_START, PassageFilter, offensive
from contrans.data.sample_corpus import SEED, SHARES, Sampling
from contrans.hashing import text_hash

Passages = list[dict[str, str]]


@pytest.fixture(scope="module")
def lines() -> list[dict[str, object]]:
    path = files("contrans.data") / "corpora" / "passages.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def passages(lines: list[dict[str, object]]) -> Passages:
    return [{key: str(value) for key, value in line.items()} for line in lines[1:]]


def test_header_says_what_was_done(lines: list[dict[str, object]], passages: Passages) -> None:
    header = lines[0]
    assert header["format_version"] == 1
    assert header["name"] == "passages"
    assert header["licence"] == "Apache-2.0"
    assert header["seed"] == SEED
    assert header["count"] == len(passages) >= 3000
    settings = header["settings"]
    assert isinstance(settings, dict)
    assert Sampling(**{key: settings[key] for key in Sampling.__dataclass_fields__}) == Sampling()


def test_shares_of_kinds(passages: Passages) -> None:
    counts = Counter(passage["kind"] for passage in passages)
    for kind, share in SHARES.items():
        assert counts[kind] / len(passages) == pytest.approx(share, abs=0.005)
    assert set(counts) == set(SHARES)


def test_no_duplicates_by_hash(passages: Passages) -> None:
    assert len({text_hash(passage["text"]) for passage in passages}) == len(passages)


def test_every_passage_passes_the_filter(passages: Passages) -> None:
    accept = PassageFilter()
    refused = [(p["text"], r) for p in passages if (r := accept.reject(p["text"], question=p["kind"] == "question"))]
    assert refused == []
    assert not any(offensive(passage["text"]) for passage in passages)


def test_lengths_and_variety(passages: Passages) -> None:
    lengths = [len(passage["text"].split()) for passage in passages]
    assert min(lengths) >= 8
    assert max(lengths) <= 32
    assert sum(10 <= n <= 24 for n in lengths) > 0.7 * len(lengths)
    starts = Counter(" ".join(passage["text"].casefold().split()[:3]) for passage in passages)
    assert max(starts.values()) <= MAX_SAME_START
    words = {word.strip(".,;:!?\"'") for passage in passages for word in passage["text"].casefold().split()}
    assert len(words) > 6000
