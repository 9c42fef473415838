"""Positions as a table, without a model."""

import pytest
import torch
from transformers import DynamicCache

from contrans.transplants.scope import SCOPES, Generation, position_mask, spans_pass

RIGHT = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]).bool()
LEFT = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]]).bool()
ONE = torch.tensor([[1], [1]]).bool()


@pytest.mark.parametrize(
    ("scope", "real", "start", "prompt", "expected"),
    [
        ("all", RIGHT, 0, 4, [[1, 1, 1, 0], [1, 1, 1, 1]]),
        ("all", LEFT, 0, 4, [[0, 1, 1, 1], [1, 1, 1, 1]]),
        ("prompt", LEFT, 0, 3, [[0, 1, 1, 0], [1, 1, 1, 0]]),
        ("generated", LEFT, 0, 3, [[0, 0, 0, 1], [0, 0, 0, 1]]),
        ("last", RIGHT, 0, 4, [[0, 0, 1, 0], [0, 0, 0, 1]]),
        ("last", LEFT, 0, 3, [[0, 0, 1, 1], [0, 0, 1, 1]]),
        ("last", LEFT, 0, 9, [[0, 0, 0, 0], [0, 0, 0, 0]]),  # the prompt goes on in a later pass
        ("prompt", ONE, 4, 4, [[0], [0]]),
        ("generated", ONE, 4, 4, [[1], [1]]),
        ("last", ONE, 4, 4, [[1], [1]]),
        ("last", ONE, 3, 4, [[1], [1]]),
        ("with_bos", LEFT, 0, 4, [[0, 1, 1, 1], [1, 1, 1, 1]]),
    ],
)
def test_position_mask(scope, real, start, prompt, expected):
    got = position_mask(scope, real, start=start, prompt_length=prompt)
    assert got.int().tolist() == expected


def test_bos_is_left_out():
    bos = torch.tensor([[0, 1, 0, 0], [1, 0, 0, 0]]).bool()
    got = position_mask("all", LEFT, start=0, prompt_length=4, is_bos=bos)
    assert got.int().tolist() == [[0, 0, 1, 1], [0, 1, 1, 1]]
    every = position_mask("with_bos", LEFT, start=0, prompt_length=4, is_bos=bos)
    assert torch.equal(every, LEFT)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("start", [0, 1, 3, 4, 5])
def test_the_short_way_says_what_the_mask_says(scope, start):
    real = LEFT if start == 0 else ONE
    bos = torch.zeros_like(real)
    bos[:, 1 if start == 0 else 0] = start == 0
    mask = position_mask(scope, real, start=start, prompt_length=4, is_bos=bos)
    said = spans_pass(scope, start=start, prompt_length=4)
    if said is not None:
        assert torch.equal(mask, real if said else torch.zeros_like(real))
    # every pass of a decoded token is told without a mask
    assert said is not None or start < 4


def test_generation_follows_cached_and_uncached_passes():
    ids = torch.arange(12).reshape(2, 6)
    cached = Generation()
    assert cached.advance(past=0, width=4, ids=ids[:, :4]) == 0
    assert cached.advance(past=4, width=1, ids=ids[:, 4:5]) == 4
    assert (cached.prompt_length, cached.seen) == (4, 5)
    whole = Generation()
    whole.advance(past=0, width=4, ids=ids[:, :4])
    whole.advance(past=0, width=5, ids=ids[:, :5])
    assert whole.prompt_length == 4
    # another prompt that happens to be one token longer begins anew
    whole.advance(past=0, width=6, ids=ids + 1)
    assert whole.prompt_length == 6
    # a prefix that was cached before anybody looked is part of the prompt
    late = Generation()
    assert late.advance(past=7, width=3, ids=None) == 7
    assert late.prompt_length == 10


def test_a_cache_that_lost_generated_columns():
    ours, other = DynamicCache(), DynamicCache()
    generation = Generation()
    generation.advance(past=0, width=4, ids=None, cache=ours)
    generation.advance(past=4, width=3, ids=None, cache=ours)
    assert generation.is_cut(5, ours)
    # going on, another cache, or back to the prompt and before it: nothing generated is in doubt
    assert not any((generation.is_cut(7, ours), generation.is_cut(5, other), generation.is_cut(4, ours)))
    assert not Generation().is_cut(5, ours)
