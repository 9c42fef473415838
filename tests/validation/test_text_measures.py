"""Measures of texts equal brute force and what is plain by hand."""

import numpy as np
import pytest
import torch

from contrans.errors import TextError
from contrans.validation.generation import Continuation
from contrans.validation.text_measures import (
    Limits,
    copy_rate,
    distinct_n,
    empty_share,
    flaw_of,
    is_degenerate,
    is_empty,
    relative_surprise,
    repetition,
)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n", [1, 2, 4])
def test_distinct_and_repetition_equal_brute_force(seed, n):
    rng = np.random.default_rng(seed)
    texts = [rng.integers(0, 4, size=rng.integers(0, 25)).tolist() for _ in range(4)]
    grams = [tuple(t[i : i + n]) for t in texts for i in range(len(t)) if i + n <= len(t)]
    assert distinct_n(texts, n) == pytest.approx(len(set(grams)) / len(grams))
    for text in texts:
        for start in (0, 3, 10):
            places = range(start, len(text) - n + 1)
            again = [any(text[j : j + n] == text[i : i + n] for j in range(i)) for i in places]
            assert repetition(text, n=n, start=start) == pytest.approx(np.mean(again) if again else 0.0)


@pytest.mark.parametrize(
    ("tokens", "expected"), [([], 0.0), ([1], 1.0), ([1, 1, 1, 1], 0.25), ([1, 2, 3], 1.0), ([1, 2, 1, 2], 0.5)]
)
def test_distinct_by_hand(tokens, expected):
    assert distinct_n([tokens], 1) == expected


@pytest.mark.parametrize(
    ("continuation", "expected"),
    [
        ("", 0.0),
        ("...", 0.0),
        ("Cats sleep on warm roofs.", 1.0),
        ("cats, sleep on WARM roofs; some", 0.5),
        ("dogs sleep on warm roofs all day", 2 / 3),
        ("dogs run", 0.0),
        # too short for five words: it is compared as a whole
        ("warm roofs", 1.0),
        ("roofs warm", 0.0),
    ],
)
def test_copy_rate(continuation, expected):
    prompt = "- Cats sleep on warm roofs.\n- They sleep on warm roofs all day long.\n-"
    assert copy_rate(prompt, continuation) == pytest.approx(expected)


def test_copy_rate_equals_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(30):
        prompt, text = (["abc"[i] for i in rng.integers(0, 3, size=k)] for k in rng.integers(5, 40, size=2))
        places = range(len(text) - 4)
        copied = [any(prompt[j : j + 5] == text[i : i + 5] for j in range(len(prompt) - 4)) for i in places]
        assert copy_rate(" ".join(prompt), " ".join(text)) == pytest.approx(np.mean(copied))


@pytest.mark.parametrize(
    ("text", "empty"),
    [("", True), (" \n\t", True), ("-...!?", True), ("__", True), ("a", False), ("7", False), ("猫", False)],
)
def test_empty(text, empty):
    assert is_empty(text) is empty


def test_empty_share():
    assert empty_share(["", "a", " -", "b"]) == 0.5
    with pytest.raises(TextError, match="no texts has no value"):
        empty_share([])


@pytest.mark.parametrize(
    ("tokens", "surprise", "expected"),
    [
        ([], None, False),
        ([7, 7, 7], None, False),  # too short to judge
        ([7, 7, 7, 7], None, True),
        ([1, 2, 3, 4, 5, 6], None, False),
        ([1, 2, 3, 4] * 3, None, True),
        ([1, 2, 3, 4, 5, 6, 1, 2, 3, 4], None, False),
        ([1, 1, 2, 1, 1, 3, 1, 1, 4], None, True),  # one token, in changing company
        ([1, 2, 3, 4, 5, 6], 0.4, False),
        ([1, 2, 3, 4, 5, 6], 0.9, True),
    ],
)
def test_degenerate(tokens, surprise, expected):
    assert is_degenerate(tokens, surprise=surprise) is expected


def test_degenerate_in_a_window_and_with_other_limits():
    sentence = list(range(20))
    assert not is_degenerate(sentence, start=10)
    # the window by itself repeats nothing; the text before it holds all of it
    assert is_degenerate(sentence + sentence, start=20)
    assert not is_degenerate([7, 7, 7, 7], limits=Limits(dominance=1.0))


def test_relative_surprise_of_uniform_tokens_is_one():
    assert relative_surprise(torch.full((5,), float(np.log(128))), 128) == pytest.approx(1.0)
    assert relative_surprise(torch.empty(0), 128) == 0.0


def test_flaws_in_their_order():
    def written(text, ids):
        return Continuation("- one two three four five\n-", [1], text, ids, False)

    assert flaw_of(written("", [])) == "empty"
    assert flaw_of(written(" one two three four five", [5] * 9)) == "copied"
    assert flaw_of(written(" x x x x x", [5] * 5)) == "degenerate"
    assert flaw_of(written(" six seven", [5, 6])) == ""
